"""Bootstrap confidence intervals of the main metrics: how much they would change with other images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

import numpy as np

from mmadv.errors import UserError
from mmadv.fields import Positive, Probability, Seed, checked
from mmadv.robustness.counts import Counts
from mmadv.shapes import Shaped

SAMPLES = 1000
LEVEL = 0.95
Values = Annotated[np.ndarray, Shaped('S', ('float64',))]
# Largest number of draws in memory at once, over all images. More images mean fewer resamples at a time.
DRAWS = 2**20


@checked
def bootstrap(
    counts: Counts, samples: Positive = SAMPLES, level: Probability = LEVEL, seed: Seed = 0
) -> dict[str, tuple[float, float] | None]:
    """Returns percentile intervals of aAcc, aAcc_image_mean, mAcc and mIoU over resampled images (Efron, 1979).

    Images without a valid pixel are left out first. The other images are drawn with replacement. The intervals
    show how much the metrics depend on the choice of images, not on the attack's randomness.

    Args:
        counts: the counts of N images.
        samples: number of resamples.
        level: share of the resamples that lies within an interval.
        seed: seed of the draws.

    Returns:
        Metric -> (low, high). The value is None if the metric is undefined in every resample, or if fewer than two
        images have a valid pixel.
    """
    counts = counts.select(counts.valid > 0)
    return intervals(len(counts), lambda weights: _resampled(counts, weights), samples, level, seed)


@checked
def paired_bootstrap(
    counts: Counts, reference: Counts, samples: Positive = SAMPLES, level: Probability = LEVEL, seed: Seed = 0
) -> dict[str, tuple[float, float] | None]:
    """Returns percentile intervals of the metrics' differences from a reference on the same images.

    A difference is the metric of ``counts`` minus that of ``reference``. Every resample draws the same images for
    both. If an image is easy or hard for both, this effect therefore cancels out.

    Args:
        counts: the counts of N images.
        reference: the reference's counts of the same images, in the same order.
        samples: number of resamples.
        level: share of the resamples that lies within an interval.
        seed: seed of the draws.

    Returns:
        Metric -> (low, high), as ``bootstrap`` returns it.

    Raises:
        UserError: the counts are not of the same images.
    """
    if counts.label.shape != reference.label.shape or (counts.label != reference.label).any():
        raise UserError('a paired comparison needs counts and reference of the same images, in the same order')
    known = counts.valid > 0
    pair = counts.select(known), reference.select(known)

    def differences(weights: np.ndarray) -> dict[str, np.ndarray]:
        values, others = (_resampled(one, weights) for one in pair)
        return {name: values[name] - others[name] for name in values}

    return intervals(len(pair[0]), differences, samples, level, seed)


@checked
def resampled_miou(counts: Counts, samples: Positive = SAMPLES, seed: Seed = 0) -> np.ndarray:
    """Returns the mIoU of resampled images, (samples,) float64, nan if undefined; for means and ratios of mIoUs.

    Counts of the same images are resampled alike if ``samples`` and ``seed`` are equal. So differences and ratios of
    the results are those of the same draws. ``percentile_interval`` makes an interval of them.

    Args:
        counts: the counts of N images. Images without a valid pixel are left out.
        samples: number of resamples.
        seed: seed of the draws.
    """
    counts = counts.select(counts.valid > 0)
    if len(counts) < 2:
        return np.full(samples, np.nan)
    return _draws(len(counts), lambda weights: {'mIoU': _resampled_miou(counts, weights)}, samples, seed)['mIoU']


@checked
def percentile_interval(values: Values, level: Probability = LEVEL) -> tuple[float, float] | None:
    """Returns the interval that holds a share of ``level`` of resampled values; None if all are nan.

    >>> percentile_interval(np.array([float('nan'), *range(101)]), level=0.5)
    (25.0, 75.0)
    """
    return _interval(values, 50 * (1 - level))


def intervals(
    images: int, measured: Callable[[np.ndarray], Mapping[str, np.ndarray]], samples: int, level: float, seed: int
) -> dict[str, tuple[float, float] | None]:
    """Returns the percentile interval of each metric; ``measured`` takes how often each image was drawn, (S, N)."""
    if images < 2:
        return dict.fromkeys(measured(np.ones((1, images))))
    tail = 50 * (1 - level)
    return {name: _interval(values, tail) for name, values in _draws(images, measured, samples, seed).items()}


def _draws(
    images: int, measured: Callable[[np.ndarray], Mapping[str, np.ndarray]], samples: int, seed: int
) -> dict[str, np.ndarray]:
    """Returns the values of each metric in all resamples, (samples,) each."""
    generator = np.random.default_rng(seed)
    drawn: dict[str, list[np.ndarray]] = {}
    chunk = max(1, DRAWS // images)
    for start in range(0, samples, chunk):
        number = min(chunk, samples - start)
        weights = generator.multinomial(images, np.full(images, 1 / images), size=number)
        for name, values in measured(weights.astype(np.float64)).items():
            drawn.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in drawn.items()}


def _resampled(counts: Counts, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the metrics of resamples, (S,) each; ``weights`` (S, N) says how often each image was drawn.

    float64 holds sums of pixels exactly, and its matrix products are much faster than those of integers.
    """
    intersection, predicted, labelled = (
        weights @ area.astype(np.float64) for area in (counts.intersection, counts.prediction, counts.label)
    )
    with np.errstate(invalid='ignore', divide='ignore'):
        iou = intersection / (labelled + predicted - intersection)
        accuracy = intersection / labelled
        return {
            'aAcc': intersection.sum(axis=1) / labelled.sum(axis=1),
            'aAcc_image_mean': np.divide(weights @ counts.accuracy, len(counts)),
            'mAcc': _mean_of_known(accuracy),
            'mIoU': _mean_of_known(iou),
        }


def _resampled_miou(counts: Counts, weights: np.ndarray) -> np.ndarray:
    """Returns the mIoU of resamples, (S,), with half of the work of ``_resampled``."""
    union = counts.label + counts.prediction - counts.intersection
    parts, wholes = (weights @ area.astype(np.float64) for area in (counts.intersection, union))
    with np.errstate(invalid='ignore', divide='ignore'):
        return _mean_of_known(parts / wholes)


def _mean_of_known(values: np.ndarray) -> np.ndarray:
    known = ~np.isnan(values)
    number = known.sum(axis=1)
    return np.where(number > 0, np.where(known, values, 0).sum(axis=1) / np.maximum(number, 1), np.nan)


def _interval(values: np.ndarray, tail: float) -> tuple[float, float] | None:
    known = values[~np.isnan(values)]
    if not known.size:
        return None
    low, high = np.percentile(known, [tail, 100 - tail])
    return float(low), float(high)
