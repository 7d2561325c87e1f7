"""Metrics of an ensemble of attacks: each member, and the worst case that SEA reports."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from mmseg.registry import METRICS

from mmadv.evaluation.attack_metric import AttackMetric
from mmadv.fields import checked
from mmadv.robustness import Counts, LowestMIoU, lowest_miou, worst_case


@METRICS.register_module(name=['EnsembleMetric', 'SEAMetric'])
@checked
class EnsembleMetric(AttackMetric):
    """Metrics of every member of an ensemble, and of the worst member of each image. Configs may call it SEAMetric too.

    ``worst_case`` takes, per image, the prediction of the member with the lowest accuracy (ties: the first); its
    aAcc_image_mean is the ACC, and its mIoU the mIoU, of the paper's SEA. ``mIoU_greedy`` is the mIoU made
    lower by swapping images, as SEA's later version reports it; ``mIoU_minimised`` is the lowest that this search
    reaches from several starts, and ``mIoU_lower_bound`` what no choice goes below. Arguments as of ``AttackMetric``.
    """

    def _summarise(self, members: Mapping[str, Counts]) -> tuple[Counts, np.ndarray]:
        return worst_case(members)

    def _search(self, members: Mapping[str, Counts]) -> LowestMIoU | None:
        return lowest_miou(members)
