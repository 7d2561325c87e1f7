"""A lower bound of a dataset's mIoU over all choices of one ensemble member per image.

Let I and U be the intersection and union of a class over the dataset. Each is a sum over the images of the chosen
member's pixels. A linear function of I and U is minimised exactly, image by image. Two linear functions give the bound:

1. For each class alone, let l be the lowest ratio I / U of any choice. It is the l for which the minimum of I - l U
   over all choices is zero.
2. Let b be the largest U of any choice. Since I - l U >= 0, I / U = l + (I - l U) / U >= l + (I - l U) / b. The sum of
   the right side over the classes is linear, so its minimum over all choices is exact. This minimum is a lower bound of
   the sum of the ratios. It is never below the sum of the l, which is reached if the choice can be made for each class
   alone.
"""

from __future__ import annotations

import numpy as np

RATIO_STEPS = 50
# The rounding error of the float64 sums here is far smaller.
ROUNDING = 1e-11


def miou_bound(intersection: np.ndarray, union: np.ndarray, labelled: np.ndarray) -> tuple[float, np.ndarray]:
    """Returns a lower bound of the mIoU over all choices, nan without a label, and a choice (N,) with a low mIoU.

    A class without a label has IoU 0 if the choice predicts it, and does not count otherwise. The bound counts all such
    classes that any member predicts.

    Args:
        intersection: (N, M, K) the intersections of every image and member.
        union: (N, M, K) the unions of every image and member.
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

    The returned value is a lower bound even before the iteration has converged. Let F <= 0 be the minimum of
    sum(part) - ratio sum(whole). Then every choice has sum(part) / sum(whole) >= ratio + F / sum(whole).

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
