"""Metrics of attack evaluations, as MMEngine metrics over :mod:`mmadv.robustness`."""

from mmadv.evaluation.attack_metric import AttackMetric
from mmadv.evaluation.image_record import FailedRecord, ImageRecord, Records
from mmadv.evaluation.result_store import ResultStore
from mmadv.evaluation.sea_metric import SEAMetric

__all__ = ['AttackMetric', 'FailedRecord', 'ImageRecord', 'Records', 'ResultStore', 'SEAMetric']
