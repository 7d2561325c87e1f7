"""Robustness measures and methods in pure numpy, SciPy and torch: counts, worst cases and aligned gradients."""

from mmadv.robustness.aligned_gradients import (
    Alignment,
    PAGLoss,
    class_scores,
    cosine_similarity,
    high_frequency_share,
    input_gradients,
)
from mmadv.robustness.counts import Counts, count, greedy_worst_case, metrics, worst_case
from mmadv.robustness.gradient_targets import (
    ClassBank,
    ClassMean,
    Distillation,
    FixedRepresentative,
    GradientTarget,
    NearestNeighbour,
    OneImage,
    draw_bank,
)

__all__ = [
    'Alignment',
    'ClassBank',
    'ClassMean',
    'Counts',
    'Distillation',
    'FixedRepresentative',
    'GradientTarget',
    'NearestNeighbour',
    'OneImage',
    'PAGLoss',
    'class_scores',
    'cosine_similarity',
    'count',
    'draw_bank',
    'greedy_worst_case',
    'high_frequency_share',
    'input_gradients',
    'metrics',
    'worst_case',
]
