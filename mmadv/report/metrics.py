"""The metrics of an evaluation: one table of their names, labels and uses. All code that lists metrics reads it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One metric of a set of predictions.

    Attributes:
        name: the key in results.
        label: the name in tables.
        of: the object of the measurement: any ``predictions``, the choices of an ``ensemble``, or a ``target``.
        headline: whether the first table of a report and comparisons show the metric.
        curve: whether the metric is drawn over the radius and compared image by image, as in SEA's paper.
        interval: whether the metric has a bootstrap interval.
        listed: whether tables of all metrics list the metric.
    """

    name: str
    label: str
    of: str = 'predictions'
    headline: bool = False
    curve: bool = False
    interval: bool = False
    listed: bool = True


METRICS = {
    metric.name: metric
    for metric in (
        Metric('aAcc', 'aAcc', headline=True, interval=True),
        Metric('aAcc_image_mean', 'ACC (image mean)', headline=True, curve=True, interval=True),
        Metric('mAcc', 'mAcc', interval=True),
        Metric('mIoU', 'mIoU', headline=True, curve=True, interval=True),
        Metric('mIoU_greedy', 'mIoU (greedy)', of='ensemble'),
        Metric('mIoU_minimised', 'mIoU (lowest)', of='ensemble', interval=True),
        Metric('mIoU_lower_bound', 'mIoU (bound)', of='ensemble'),
        Metric('target_rate', 'target reached', of='target'),
        Metric('target_rate_image_mean', 'target reached (image mean)', of='target', listed=False),
    )
}
PREDICTION_METRICS = tuple(metric for metric in METRICS.values() if metric.of == 'predictions')
HEADLINE = tuple(metric for metric in METRICS.values() if metric.headline)
CURVES = tuple(metric for metric in METRICS.values() if metric.curve)
