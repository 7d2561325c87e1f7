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

    ``worst_case`` takes, per image, the prediction of the member with the lowest accuracy (ties: the first). Its
    aAcc_image_mean is the ACC of the SEA paper, and its mIoU is the paper's mIoU. ``mIoU_greedy`` is the mIoU after a
    greedy search that swaps members image by image, as SEA's later version reports it. ``mIoU_minimised`` is the
    lowest mIoU that this search reaches from several starts. No choice has an mIoU below ``mIoU_lower_bound``. The
    arguments are those of ``AttackMetric``.
    """

    def _summarise(self, members: Mapping[str, Counts]) -> tuple[Counts, np.ndarray]:
        return worst_case(members)

    def _search(self, members: Mapping[str, Counts]) -> LowestMIoU | None:
        return lowest_miou(members)
