"""A lower bound of the mIoU over a dataset over all choices of one ensemble member per image.

For a class let I and U be its intersection and union over the dataset: sums over images of what the chosen member has
there. Whatever is linear in them is minimised exactly, image by image. Two linear functions give the bound:

1. For each class alone, the lowest ratio l of any choice is where the minimum of I - l U is zero.
2. Let b be the largest U of any choice. Since I - l U >= 0, I / U = l + (I - l U) / U >= l + (I - l U) / b. The
   sum over the classes of the right side is linear, so that its minimum over all choices is exact, and it bounds
   the sum of the ratios. It is never below the sum of the l, which the choices would reach if they could be made for
   each class alone.
"""

from __future__ import annotations

import numpy as np

RATIO_STEPS = 50
# Sums of this many float64 numbers are exact to far less.
ROUNDING = 1e-11


def miou_bound(intersection: np.ndarray, union: np.ndarray, labelled: np.ndarray) -> tuple[float, np.ndarray]:
    """Returns a lower bound of the mIoU over all choices, nan without a label, and a choice (N,) that is low.

    Classes without a label have IoU 0 where they are predicted, and do not count where they are not; as many as any
    member predicts are taken to count.

    Args:
        intersection: (N, M, K) of every image and member.
        union: (N, M, K).
        labelled: (K,) bool, the classes that occur in the labels.
    """
    if not labelled.any():
        return float('nan'), np.zeros(len(union), dtype=np.int64)
    classes = int(labelled.sum()) + int(union[:, :, ~labelled].any(axis=(0, 1)).sum())
    part, whole = (area[:, :, labelled].astype(np.float64) for area in (intersection, union))
    low = _lowest_ratios(part, whole)
    largest = whole.max(axis=1).sum(axis=0)
    linear = part @ (1 / largest) - whole @ (low / largest)  # (N, M)
    bound = (low.sum() + linear.min(axis=1).sum()) / classes
    return max(0.0, float(bound) - ROUNDING), linear.argmin(axis=1)


def _lowest_ratios(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Returns the lowest sum(part) / sum(whole) over all choices for each class alone, (K,) (Dinkelbach, 1967).

    What is returned is a bound also before the iteration has converged: with F <= 0 the minimum of
    sum(part) - ratio sum(whole), every choice has sum(part) / sum(whole) >= ratio + F / sum(whole).

    Args:
        part: (N, M, K).
        whole: (N, M, K), not below ``part``; its sums are positive.
    """
    images, classes = np.arange(len(part))[:, None], np.arange(part.shape[2])[None]
    smallest = whole.min(axis=1).sum(axis=0)
    ratio = part[:, 0].sum(axis=0) / whole[:, 0].sum(axis=0)
    for _ in range(RATIO_STEPS):
        slack = part - ratio * whole
        choice = slack.argmin(axis=1)
        least = slack[images, choice, classes].sum(axis=0)
        lower = ratio + np.minimum(least, 0) / smallest
        candidate = part[images, choice, classes].sum(axis=0) / whole[images, choice, classes].sum(axis=0)
        if (ratio - candidate <= 1e-14).all():
            break
        ratio = np.minimum(ratio, candidate)
    return np.clip(lower, 0, 1)
