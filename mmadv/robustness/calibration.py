"""Calibration and confidence of a segmentor: sums of each image that add up, and the metrics that follow from them.

All pixels whose label is a class count, each as one prediction. The sums of an image take little memory, so a dataset
of any size can be measured, resampled and resumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated

import numpy as np
import torch
from scipy.special import digamma

from mmadv.attacks.checks import finite
from mmadv.errors import UserError
from mmadv.fields import IgnoreIndex, Positive, Seed, checked, checked_exactly
from mmadv.robustness.bootstrap import SAMPLES, intervals
from mmadv.shapes import ANY_FLOATS, Shaped

BINS = 15
# Pixels are ranked by the log-odds of their confidence, in so many steps between these ends.
RANKS, LOWEST, HIGHEST = 512, -8.0, 24.0
# Names of the entries of ``totals``.
TOTALS = ('pixels', 'right', 'brier', 'entropy_right', 'entropy_wrong', 'confidence')
METRICS = (
    *('accuracy', 'confidence', 'ece', 'ece_debiased', 'ece_classwise', 'brier', 'entropy_right', 'entropy_wrong'),
    *('aurc', 'excess_aurc'),
)

Scores = Annotated[torch.Tensor, Shaped('K H W', ANY_FLOATS, finite)]
Map = Annotated[torch.Tensor, Shaped('H W', ('int64', 'int32', 'uint8'))]


@checked_exactly
@dataclass(frozen=True)
class CalibrationSums:
    """Sums over the pixels of an image, or of several images.

    Attributes:
        confidence: (bins, 3) float64: pixels, right pixels and sum of the confidences, by the confidence.
        classes: (K, bins, 3) float64: pixels, pixels of the class and sum of the probabilities, by the probability of
            each class.
        ranks: (RANKS, 2) float64: pixels and wrong pixels, by the log-odds of the confidence.
        totals: (len(TOTALS),) float64: the sums that ``TOTALS`` names.
    """

    confidence: np.ndarray
    classes: np.ndarray
    ranks: np.ndarray
    totals: np.ndarray

    def __add__(self, other: CalibrationSums) -> CalibrationSums:
        """Returns the sums over the pixels of both."""
        return CalibrationSums(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))


@checked
def calibration_sums(
    logits: Scores, labels: Map, bins: Positive = BINS, ignore_index: IgnoreIndex = 255
) -> CalibrationSums:
    """Returns the sums of one image.

    Args:
        logits: (K, H, W), before softmax.
        labels: (H, W) integers in [0, K), or ``ignore_index``.
        bins: number of bins of equal width between 0 and 1.
        ignore_index: label of the pixels that do not count.

    Raises:
        UserError: a logit is not finite, or a label is no class.
    """
    classes, valid = len(logits), labels != ignore_index
    labels, scores = labels[valid].long(), logits[:, valid].double()
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise UserError(
            f'calibration_sums: labels must lie in [0, {classes}); found {int(labels.min())} to {int(labels.max())}'
        )
    log_p = torch.log_softmax(scores, dim=0)
    best = log_p.argmax(0)
    confidence = log_p.gather(0, best[None])[0].exp()
    right = best == labels
    table = np.zeros((classes, bins, 3))
    brier, entropy = torch.zeros_like(confidence), torch.zeros_like(confidence)
    for k, log_share in enumerate(log_p):  # class by class, so that memory stays that of the logits
        share, hit = log_share.exp(), labels == k
        table[k] = _binned(share, hit, bins)
        brier += (share - hit.double()).square()
        entropy -= torch.where(share > 0, share * log_share, 0)
    # The log-odds of the confidence, without the loss of digits that 1 - confidence would have.
    others = log_p.scatter(0, best[None], -torch.inf).logsumexp(0)
    place = (confidence.log() - others - LOWEST) * (RANKS / (HIGHEST - LOWEST))
    rank = place.nan_to_num(posinf=RANKS).long().clamp(0, RANKS - 1)
    ranks = np.stack([_count(rank, RANKS), _count(rank[~right], RANKS)], axis=1)
    sums = (right.sum(), brier.sum(), entropy[right].sum(), entropy[~right].sum(), confidence.sum())
    totals = np.array([len(labels), *(float(one) for one in sums)])
    return CalibrationSums(_binned(confidence, right, bins), table, ranks, totals)


def _binned(share: torch.Tensor, hit: torch.Tensor, bins: int) -> np.ndarray:
    """Returns pixels, hits and sum of the shares in each bin, (bins, 3)."""
    place = (share * bins).long().clamp(0, bins - 1)
    sums = torch.bincount(place, weights=share, minlength=bins).cpu().numpy()
    return np.stack([_count(place, bins), _count(place[hit], bins), sums], axis=1)


def _count(places: torch.Tensor, size: int) -> np.ndarray:
    return torch.bincount(places, minlength=size).cpu().numpy().astype(np.float64)


@checked
def calibration_metrics(sums: CalibrationSums) -> dict[str, float]:
    """Returns the metrics of ``METRICS``; nan if undefined.

    - ``ece``: expected calibration error: the mean over pixels of |accuracy - mean confidence| of their bin.
    - ``ece_debiased``: the root of the mean squared error, less the part that chance alone gives (Kumar, Liang and Ma,
      2019); 0 if that part is larger.
    - ``ece_classwise``: the mean over classes of the error of the class' own probability (Nixon et al., 2019).
    - ``brier``: mean of the squared distance of the probabilities from the label, from 0 to 2.
    - ``entropy_right``, ``entropy_wrong``: mean entropy of right and of wrong pixels, in nats.
    - ``aurc``: area under the risk-coverage curve: the mean, over all shares of the pixels, of the error rate of the
      most confident ones (Geifman and El-Yaniv, 2017). ``excess_aurc`` is less that of a perfect order.
    """
    values = _metrics(*(getattr(sums, one.name)[None] for one in fields(sums)))
    return {name: float(value[0]) for name, value in values.items()}


@checked
def calibration_intervals(
    images: Sequence[CalibrationSums], samples: Positive = SAMPLES, seed: Seed = 0
) -> dict[str, tuple[float, float] | None]:
    """Returns 95 % percentile intervals of the metrics over resampled images; None with fewer than two images.

    Args:
        images: the sums of each image; those without a pixel are left out.
        samples: number of resamples.
        seed: seed of the draws.

    Raises:
        UserError: the images have different numbers of classes or bins.
    """
    known = [one for one in images if one.totals[0]]
    if len({one.classes.shape for one in known}) > 1:
        raise UserError('calibration_intervals: images must have the same numbers of classes and bins')
    if len(known) < 2:
        return dict.fromkeys(METRICS)
    parts = [np.stack([getattr(one, part.name) for one in known]) for part in fields(CalibrationSums)]

    def measured(weights: np.ndarray) -> dict[str, np.ndarray]:
        return _metrics(*(np.tensordot(weights, part, axes=1) for part in parts))

    return intervals(len(known), measured, samples, 0.95, seed)


def _metrics(
    confidence: np.ndarray, classes: np.ndarray, ranks: np.ndarray, totals: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns the metrics of S sets of sums, (S,) each; the first dimension of the arguments is S."""
    pixels, right, brier, entropy_right, entropy_wrong, confidences = totals.T
    with np.errstate(invalid='ignore', divide='ignore'):
        accuracy, wrong = right / pixels, pixels - right
        gaps = np.abs(confidence[..., 1] - confidence[..., 2])
        by_class = np.abs(classes[..., 1] - classes[..., 2]).sum((1, 2)) / (pixels * classes.shape[1])
        aurc = _area(ranks) / pixels
        best = np.where(wrong > 0, 1 - accuracy + accuracy * np.log(accuracy), 0)
        return {
            'accuracy': accuracy,
            'confidence': confidences / pixels,
            'ece': gaps.sum(1) / pixels,
            'ece_debiased': _debiased(confidence, pixels),
            'ece_classwise': by_class,
            'brier': brier / pixels,
            'entropy_right': entropy_right / right,
            'entropy_wrong': entropy_wrong / wrong,
            'aurc': aurc,
            'excess_aurc': aurc - np.where(accuracy > 0, best, 1),
        }


def _debiased(confidence: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    number, hits, sums = np.moveaxis(confidence, -1, 0)
    mean = hits / number
    squared = (mean - sums / number) ** 2 - mean * (1 - mean) / (number - 1)
    # One pixel has no variance; such a bin is left out, as it has no weight to speak of.
    known = np.where(number > 1, number * squared, 0).sum(1) / pixels
    return np.where(pixels > 0, np.sqrt(np.maximum(known, 0)), np.nan)


def _area(ranks: np.ndarray) -> np.ndarray:
    """Returns the sum, over the numbers n of most confident pixels, of their error rate, (S,).

    The order of pixels of one rank is random, and the sum is its expectation.
    """
    number, wrong = np.moveaxis(ranks[:, ::-1], -1, 0)
    before, errors = number.cumsum(1) - number, wrong.cumsum(1) - wrong
    rate = np.divide(wrong, number, out=np.zeros_like(wrong), where=number > 0)
    # sum over i = 1..m of (E + rate * i) / (C + i), with E errors among C pixels before this rank
    harmonic = digamma(before + number + 1) - digamma(before + 1)
    return (wrong + (errors - before * rate) * harmonic).sum(1)
