"""The statistics of randomized smoothing in numpy and SciPy: confidence bounds, radii, and corrections for many pixels.

A pixel's *share* is the mean over n draws of a number in [0, 1]. For hard smoothing the number is 1 if the draw
predicts the class, else 0. For soft smoothing it is the class' probability in the draw. The share's expectation is p.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np
from scipy.special import betainc, betaincinv
from scipy.stats import norm

from mmadv.attacks.checks import check_sigma
from mmadv.errors import UserError
from mmadv.fields import IgnoreIndex, Positive, Probability, Share, checked
from mmadv.robustness.counts import Areas, Counts, count
from mmadv.robustness.hierarchy import Hierarchy
from mmadv.shapes import FLOATS, INTEGERS, Shaped


def in_unit_range(values: np.ndarray) -> tuple[str, str] | None:
    """Returns the range that values must lie in and the range found, or None if all values fit; NaN does not fit."""
    lowest, highest = values.min(), values.max()
    fits = lowest >= 0 and highest <= 1
    return None if fits else ('in [0, 1]', f'values from {lowest:g} to {highest:g}')


Shares = Annotated[np.ndarray, Shaped('*S', FLOATS, in_unit_range)]

# Each number of bounds of a pixel -> its corrections for many pixels; the first is the default.
SIDES = {'one': ('holm', 'bonferroni'), 'two': ('bonferroni',)}
# The bounds that hold for each kind of smoothing; the first is the default.
SHARES = {'hard': ('clopper-pearson',), 'soft': ('hoeffding', 'bernstein')}


class Bound(ABC):
    """A lower confidence bound on p and the matching test: lower(α) > τ if and only if p_value(τ) < α."""

    @abstractmethod
    def lower(self, mean: np.ndarray, variance: np.ndarray, n: int, alpha: float) -> np.ndarray:
        """Returns a number that p exceeds with probability at least 1 - α.

        Args:
            mean: mean of the n draws.
            variance: variance of the n draws, with n - 1 in the denominator.
            n: number of draws.
            alpha: error rate of each bound.
        """

    @abstractmethod
    def p_value(self, mean: np.ndarray, variance: np.ndarray, n: int, tau: float) -> np.ndarray:
        """Returns the p-value of the hypothesis that p ≤ τ."""

    @abstractmethod
    def samples_needed(self, tau: float, alpha: float) -> int:
        """Returns the number of draws that reject p ≤ τ at level α when every share is 1."""


class ClopperPearson(Bound):
    """The exact binomial bound, for shares of predictions."""

    def lower(self, mean: np.ndarray, variance: np.ndarray, n: int, alpha: float) -> np.ndarray:
        hits = _hits(mean, n)
        # P(X ≥ k) of a binomial X is the regularised incomplete beta function of k and n - k + 1.
        return np.where(hits > 0, betaincinv(np.maximum(hits, 1), n - np.maximum(hits, 1) + 1, alpha), 0.0)

    def p_value(self, mean: np.ndarray, variance: np.ndarray, n: int, tau: float) -> np.ndarray:
        hits = _hits(mean, n)
        return np.where(hits > 0, betainc(np.maximum(hits, 1), n - np.maximum(hits, 1) + 1, tau), 1.0)

    def samples_needed(self, tau: float, alpha: float) -> int:
        return math.floor(math.log(alpha) / math.log(tau)) + 1


class Hoeffding(Bound):
    """Hoeffding's inequality, for any shares in [0, 1]."""

    def lower(self, mean: np.ndarray, variance: np.ndarray, n: int, alpha: float) -> np.ndarray:
        return np.maximum(mean - math.sqrt(math.log(1 / alpha) / (2 * n)), 0)

    def p_value(self, mean: np.ndarray, variance: np.ndarray, n: int, tau: float) -> np.ndarray:
        return np.exp(-2 * n * np.maximum(mean - tau, 0) ** 2)

    def samples_needed(self, tau: float, alpha: float) -> int:
        return math.floor(math.log(1 / alpha) / (2 * (1 - tau) ** 2)) + 1


class EmpiricalBernstein(Bound):
    """The empirical Bernstein inequality (Maurer and Pontil, 2009, theorem 4): tighter if shares vary little."""

    def lower(self, mean: np.ndarray, variance: np.ndarray, n: int, alpha: float) -> np.ndarray:
        logarithm = math.log(2 / alpha)
        margin = np.sqrt(2 * variance * logarithm / n) + 7 * logarithm / (3 * max(n - 1, 1))
        return np.maximum(mean - margin, 0)

    def p_value(self, mean: np.ndarray, variance: np.ndarray, n: int, tau: float) -> np.ndarray:
        # With s² = ln(2 / α) the margin is a s² + b s; it equals the gap at the p-value.
        a = 7 / (3 * max(n - 1, 1))
        b = np.sqrt(2 * variance / n)
        gap = np.maximum(mean - tau, 0)
        root = (np.sqrt(b**2 + 4 * a * gap) - b) / (2 * a)
        return np.minimum(2 * np.exp(-(root**2)), 1.0)

    def samples_needed(self, tau: float, alpha: float) -> int:
        return math.floor(1 + 7 * math.log(2 / alpha) / (3 * (1 - tau))) + 1


BOUNDS: dict[str, Bound] = {
    'clopper-pearson': ClopperPearson(),
    'hoeffding': Hoeffding(),
    'bernstein': EmpiricalBernstein(),
}


@checked
def bonferroni(p_values: Shares, alpha: Probability) -> np.ndarray:
    """Returns which hypotheses are rejected, of any shape, with a family-wise error rate of at most α (Bonferroni)."""
    return p_values < alpha / p_values.size


@checked
def holm(p_values: Shares, alpha: Probability) -> np.ndarray:
    """Returns which hypotheses are rejected, with a family-wise error rate of at most α (Holm, 1979).

    The i-th smallest of m p-values, from i = 0, is compared with α / (m - i), up to the first that fails. Holm's method
    rejects every hypothesis that Bonferroni's correction rejects.
    """
    order = np.argsort(p_values, axis=None, kind='stable')
    passed = p_values.ravel()[order] < alpha / (p_values.size - np.arange(p_values.size))
    rejected = np.zeros(p_values.size, dtype=bool)
    rejected[order] = np.logical_and.accumulate(passed)
    return rejected.reshape(p_values.shape)


CORRECTIONS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {'bonferroni': bonferroni, 'holm': holm}


def finest_levels(p_values: np.ndarray, alpha: float, correction: str) -> np.ndarray:
    """Returns the finest level of each pixel that is rejected, -1 if none is, with a family-wise error rate of α.

    The hypothesis of a level says that the share of the pixel's group is at most τ. A group lies within its coarser
    groups. So p-values fall from level to level, and if a hypothesis is true, all finer ones are. Among the true
    hypotheses of a pixel, the coarsest has the smallest p-value: an error at any level is an error there. The levels
    therefore need no correction. Only the pixels do:

    - 'bonferroni': each p-value is compared with α / P.
    - 'holm': level 0 is corrected as without a hierarchy, and rejects R pixels. The coarser levels are compared with
      α / (P - R). Before the first error, those R pixels have no true hypothesis, so at most P - R pixels have one.

    Level 0 is what the correction gives without a hierarchy.

    Args:
        p_values: (L, ...) of level 0, the finest, to L - 1, falling along the levels.
        alpha: error rate over all pixels and levels.
        correction: 'bonferroni' or 'holm'.
    """
    finest = CORRECTIONS[correction](p_values[0], alpha)
    pixels = finest.size - (int(finest.sum()) if correction == 'holm' else 0)
    levels = np.full(finest.shape, -1, dtype=np.int8)
    for level in range(len(p_values) - 1, 0, -1):
        levels[p_values[level] < alpha / max(pixels, 1)] = level
    levels[finest] = 0
    return levels


@checked
def certified_radius(lower: Shares | Share, sigma: float, upper: Shares | Share | None = None) -> np.ndarray:
    """Returns the L2 radius within which the largest share stays the largest, 0 if nothing is certified.

    It is σ/2 (Φ⁻¹(p_A) - Φ⁻¹(p_B)), theorem 1 of Kaur et al. (2019) for soft and Cohen et al. (2019) for hard
    smoothing.

    Args:
        lower: lower bound on the largest share p_A.
        sigma: standard deviation of the noise.
        upper: upper bound on every other share p_B. The default is 1 - lower, which gives σ Φ⁻¹(p_A).

    Raises:
        UserError: σ is not positive, or more than the range of images in [0, 1].
    """
    check_sigma(sigma, 'certified_radius')
    lower = np.asarray(lower, dtype=np.float64)
    other = 1 - lower if upper is None else np.asarray(upper, dtype=np.float64)
    return _radius(lower, sigma, other)


def _radius(lower: np.ndarray, sigma: float, other: np.ndarray) -> np.ndarray:
    radius = sigma / 2 * (norm.ppf(lower) - norm.ppf(other))
    return np.where(lower > other, radius, 0.0)


@checked
def soft_radii(
    means: Annotated[np.ndarray, Shaped('K *S', FLOATS, in_unit_range)],
    variances: Annotated[np.ndarray, Shaped('K *S', FLOATS, in_unit_range)],
    n: Positive,
    *,
    alpha: Probability,
    sigma: float,
    bound: Literal['hoeffding', 'bernstein'] = 'hoeffding',
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the class and certified radius of every pixel, from the mean probabilities of all classes (theorem 1).

    Each of the K lower and K upper bounds of the P pixels has error rate α / (2KP). All bounds therefore hold at once
    with probability 1 - α, and the same draws may choose the class.

    Args:
        means: (K, ...) means of the n draws.
        variances: (K, ...) variances of the n draws, with n - 1 in the denominator.
        n: number of draws.
        alpha: error rate of all statements together.
        sigma: standard deviation of the noise.
        bound: 'hoeffding' or 'bernstein'.
    """
    check_sigma(sigma, 'soft_radii')
    classes = means.argmax(0)
    lower, upper = _bounds_of_all(means, variances, n, alpha / (2 * means.size), bound)
    return classes, _radii_of_bounds(classes, lower, upper, sigma)


def two_sided_radii(
    classes: np.ndarray,
    means: np.ndarray,
    variances: np.ndarray,
    n: int,
    *,
    alpha: float,
    sigma: float,
    bound: str,
) -> np.ndarray:
    """Returns the certified radius of classes that other draws have selected, from the shares of all classes.

    It is σ/2 (Φ⁻¹(p_A) - Φ⁻¹(p_B)), theorem 1. p_A has a lower bound and each of the K - 1 rivals has an upper bound.
    Each of these K bounds of the P pixels has error rate α / (KP), so all of them hold at once with probability 1 - α.

    Args:
        classes: (...) the selected classes.
        means: (K, ...) mean shares of the n draws.
        variances: (K, ...) variances of the shares, with n - 1 in the denominator.
        n: number of draws.
        alpha: error rate of all statements together.
        sigma: standard deviation of the noise.
        bound: a name of ``BOUNDS`` that fits the kind of smoothing.
    """
    return _radii_of_bounds(classes, *_bounds_of_all(means, variances, n, alpha / means.size, bound), sigma)


def _bounds_of_all(
    means: np.ndarray, variances: np.ndarray, n: int, each: float, bound: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns lower and upper bounds of all shares, of error rate ``each``; a share p is 1 minus that of all others."""
    lower = BOUNDS[bound].lower(means, variances, n, each)
    return lower, 1 - BOUNDS[bound].lower(1 - means, variances, n, each)


def _radii_of_bounds(classes: np.ndarray, lower: np.ndarray, upper: np.ndarray, sigma: float) -> np.ndarray:
    """Returns the radius of each class, from bounds (K, ...); writes into ``upper``."""
    top = np.take_along_axis(lower, classes[None], 0)[0]
    np.put_along_axis(upper, classes[None], -np.inf, 0)
    return _radius(top, sigma, np.minimum(upper.max(0), 1 - top))


@checked
def certified_counts(
    classes: Annotated[np.ndarray, Shaped('H W', INTEGERS)],
    certified: Annotated[np.ndarray, Shaped('H W', ('bool',))],
    labels: Annotated[np.ndarray, Shaped('H W', INTEGERS)],
    num_classes: Positive,
    ignore_index: IgnoreIndex = 255,
) -> tuple[Counts, np.ndarray]:
    """Returns the counts of one image's certified pixels, and the number of its abstained pixels by label.

    An abstained pixel is predicted as no class. It counts as wrong in the accuracy, and is only in the union of its
    own class.

    Args:
        classes: (H, W) the predicted class of each pixel.
        certified: (H, W) bool.
        labels: (H, W).
        num_classes: K.
        ignore_index: label of pixels that every count leaves out.

    Returns:
        The counts of one image, and the abstained pixels by label, (1, K) int64.

    Raises:
        UserError: a class or label is outside its range.
    """
    if classes.min() < 0 or classes.max() >= num_classes:
        raise UserError(f'classes must lie in [0, {num_classes}), found values from {classes.min()} to {classes.max()}')
    predicted = np.where(certified, classes, num_classes)[None]
    counts = count(predicted, labels[None], num_classes + 1, ignore_index)
    known = Counts(*(area[:, :num_classes] for area in (counts.intersection, counts.prediction, counts.label)))
    abstained = np.bincount(labels[~certified & (labels != ignore_index)], minlength=num_classes)
    return known, abstained[None]


def level_counts(
    classes: np.ndarray, levels: np.ndarray, labels: np.ndarray, hierarchy: Hierarchy, ignore_index: int = 255
) -> list[list[float]]:
    """Returns [pixels certified at the level, those of them whose group has the label, their gain] for each level.

    The gain of a pixel whose group has g of K classes is log(K / g) / log K. The mean over all valid pixels is the
    certified information gain (Anani et al., 2024). Without a hierarchy it is the certified accuracy.

    Args:
        classes: (H, W) the selected classes.
        levels: (H, W) the finest certified level; -1 where there is none.
        labels: (H, W).
        hierarchy: the groups.
        ignore_index: label of pixels that are in no count.
    """
    groups, gains, valid = hierarchy.groups, hierarchy.gains, labels != ignore_index
    rows = []
    for level, (group, gain) in enumerate(zip(groups, gains, strict=True)):
        chosen = valid & (levels == level)
        named = labels[chosen]
        right = group[named] == group[classes[chosen]]
        rows.append([int(chosen.sum()), int(right.sum()), float(gain[named[right]].sum())])
    return rows


@checked
def worst_iou(counts: Counts, abstained: Areas) -> np.ndarray:
    """Returns each class' IoU if every abstained pixel of another label were predicted as that class, (K,).

    The IoU under any attack within the radius is at least as high. The value is NaN if a class has no labelled pixel
    and no pixel that is or could be predicted as it.

    Args:
        counts: the counts of certified pixels.
        abstained: (N, K) abstained pixels by label.
    """
    if abstained.shape != counts.label.shape:
        raise UserError(f'abstained must be of shape {counts.label.shape}, as the counts; found {abstained.shape}')
    total = counts.total()
    intersection = total.intersection[0]
    others = abstained.sum() - abstained.sum(0)
    union = total.label[0] + total.prediction[0] - intersection + others
    return np.divide(intersection, union, out=np.full(len(union), np.nan), where=union > 0)


def _hits(mean: np.ndarray, n: int) -> np.ndarray:
    return np.rint(np.asarray(mean, dtype=np.float64) * n)
