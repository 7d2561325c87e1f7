"""Intervals of the headline numbers: how far they would move with other images."""

from __future__ import annotations

import numpy as np

from mmadv.robustness.counts import Counts

SAMPLES = 1000
LEVEL = 0.95
CHUNK = 100


def bootstrap(
    counts: Counts, samples: int = SAMPLES, level: float = LEVEL, seed: int = 0
) -> dict[str, tuple[float, float] | None]:
    """Returns percentile intervals of aAcc, aAcc_image_mean, mAcc and mIoU over resampled images (Efron, 1979).

    Images are drawn with replacement; those without a valid pixel are left out first. They say how much the
    numbers owe to the choice of images, not to the attack's randomness.

    Args:
        counts: of N images.
        samples: how many resamples.
        level: share of the resamples that lies within an interval.
        seed: of the draws.

    Returns:
        Metric -> (low, high), None where it is undefined in every resample, as it is with fewer than two images.
    """
    counts = counts.select(counts.valid > 0)
    names = ('aAcc', 'aAcc_image_mean', 'mAcc', 'mIoU')
    if len(counts) < 2:
        return dict.fromkeys(names)
    generator = np.random.default_rng(seed)
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for start in range(0, samples, CHUNK):
        number = min(CHUNK, samples - start)
        weights = generator.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=number)
        for name, values in _resampled(counts, weights).items():
            drawn[name].append(values)
    tail = 50 * (1 - level)
    return {name: _interval(np.concatenate(values), tail) for name, values in drawn.items()}


def _resampled(counts: Counts, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the metrics of resamples, (S,) each; ``weights`` (S, N) says how often each image was drawn."""
    intersection, predicted, labelled = (
        weights @ area for area in (counts.intersection, counts.prediction, counts.label)
    )
    with np.errstate(invalid='ignore', divide='ignore'):
        iou = intersection / (labelled + predicted - intersection)
        accuracy = intersection / labelled
    return {
        'aAcc': intersection.sum(axis=1) / labelled.sum(axis=1),
        'aAcc_image_mean': weights @ counts.accuracy / len(counts),
        'mAcc': _mean_of_known(accuracy),
        'mIoU': _mean_of_known(iou),
    }


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
