"""Robustness measures and methods in pure numpy, SciPy and torch: counts, aligned gradients, smoothing."""

from mmadv.robustness.aligned_gradients import (
    Alignment,
    PAGLoss,
    class_scores,
    cosine_similarity,
    high_frequency_share,
    input_gradients,
    measure_gradients,
)
from mmadv.robustness.bootstrap import bootstrap, paired_bootstrap, percentile_interval, resampled_miou
from mmadv.robustness.calibration import (
    CalibrationSums,
    calibration_intervals,
    calibration_metrics,
    calibration_sums,
)
from mmadv.robustness.certification import (
    bonferroni,
    certified_counts,
    certified_radius,
    holm,
    soft_radii,
    worst_iou,
)
from mmadv.robustness.clustering import cluster_means
from mmadv.robustness.components import every_subset, wins
from mmadv.robustness.counts import Counts, chosen_counts, count, metrics, worst_case
from mmadv.robustness.gradient_targets import (
    ClassBank,
    ClassMean,
    Distillation,
    FixedRepresentative,
    GradientTarget,
    NearestClusterMean,
    NearestNeighbour,
    OneImage,
    draw_bank,
)
from mmadv.robustness.hierarchy import Hierarchy
from mmadv.robustness.lowest_miou import LowestMIoU, greedy_worst_case, lowest_miou
from mmadv.robustness.smooth_adv import SmoothAdv
from mmadv.robustness.smoothing import Certificate, Certifier, NonFiniteNoisyLogits, SmoothedModel

__all__ = [
    'Alignment',
    'CalibrationSums',
    'Certificate',
    'Certifier',
    'ClassBank',
    'ClassMean',
    'Counts',
    'Distillation',
    'FixedRepresentative',
    'GradientTarget',
    'Hierarchy',
    'LowestMIoU',
    'NearestClusterMean',
    'NearestNeighbour',
    'NonFiniteNoisyLogits',
    'OneImage',
    'PAGLoss',
    'SmoothAdv',
    'SmoothedModel',
    'bonferroni',
    'bootstrap',
    'calibration_intervals',
    'calibration_metrics',
    'calibration_sums',
    'certified_counts',
    'certified_radius',
    'chosen_counts',
    'class_scores',
    'cluster_means',
    'cosine_similarity',
    'count',
    'draw_bank',
    'every_subset',
    'greedy_worst_case',
    'high_frequency_share',
    'holm',
    'input_gradients',
    'lowest_miou',
    'measure_gradients',
    'metrics',
    'paired_bootstrap',
    'percentile_interval',
    'resampled_miou',
    'soft_radii',
    'wins',
    'worst_case',
    'worst_iou',
]
