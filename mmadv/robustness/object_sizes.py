"""Accuracy by object size.

An object is a connected region of one class in the label. Pixels that share an edge or a corner are neighbours. The
label map has no instances, so touching objects of one class count as one. An object's size is its share of the image's
area, which includes void pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy import ndimage

# Bounds between the sizes, as shares of the image's area. An object exactly on a bound has the larger size.
EDGES = (0.001, 0.01, 0.1)
NEIGHBOURS = np.ones((3, 3), dtype=bool)

SizeRow = list[int]
HitRow = list[float]


def label_regions(label: np.ndarray, ignore_index: int = 255) -> tuple[np.ndarray, int]:
    """Returns each pixel's object, (H, W), and the number of objects; objects count from 1, void pixels are 0.

    Args:
        label: (H, W) integers, classes or ``ignore_index``.
        ignore_index: label of void pixels.

    >>> regions, number = label_regions(np.array([[0, 1, 0], [1, 0, 255]]))
    >>> regions.tolist(), number
    ([[1, 2, 1], [2, 1, 0]], 2)
    """
    classes = np.where(label == ignore_index, 0, label.astype(np.int64) + 1)
    regions, number = np.zeros(label.shape, dtype=np.int64), 0
    for value, place in enumerate(ndimage.find_objects(classes), start=1):
        if place is None:
            continue
        numbered, count = ndimage.label(classes[place] == value, structure=NEIGHBOURS)
        regions[place] += np.where(numbered > 0, numbered + number, 0)
        number += count
    return regions, number


def hits_by_size(
    label: Any, predictions: Sequence[Any], ignore_index: int = 255
) -> tuple[list[SizeRow], list[list[HitRow]]]:
    """Returns the objects of one image by size, and the correct pixels of each prediction in them.

    Args:
        label: (H, W) integers, tensor or array.
        predictions: (H, W) integers each.
        ignore_index: label of void pixels.

    Returns:
        A row of [size, objects, pixels] for each size that occurs; ``size`` is an index into the sizes from small to
        large. For each prediction, a row per size of [correct pixels, sum over objects of their share of correct
        pixels].
    """
    labelled = _array(label)
    regions, number = label_regions(labelled, ignore_index)
    pixels = np.bincount(regions.ravel(), minlength=number + 1)[1:]
    sizes = np.searchsorted(np.multiply(EDGES, labelled.size), pixels, side='right')
    occurring = np.unique(sizes)
    rows = [[int(size), int((sizes == size).sum()), int(pixels[sizes == size].sum())] for size in occurring]
    hits = []
    for prediction in predictions:
        correct = np.bincount(regions[_array(prediction) == labelled], minlength=number + 1)[1:]
        shares = correct / pixels
        hits.append([[int(correct[sizes == size].sum()), float(shares[sizes == size].sum())] for size in occurring])
    return rows, hits


def _array(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
