"""Metrics of attack evaluations, as MMEngine metrics over :mod:`mmadv.robustness`."""

from mmadv.evaluation.attack_metric import AttackMetric
from mmadv.evaluation.ensemble_metric import EnsembleMetric
from mmadv.evaluation.image_record import FailedRecord, ImageRecord, Records
from mmadv.evaluation.result_store import ResultStore

__all__ = ['AttackMetric', 'EnsembleMetric', 'FailedRecord', 'ImageRecord', 'Records', 'ResultStore']
