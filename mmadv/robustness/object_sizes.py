"""How accuracy depends on the size of what is labelled.

An object is a connected region of one class in the label, pixels being neighbours across edges and corners; labels
without instances have no other. Its size is its share of the image's area, void pixels included in the latter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy import ndimage

# Shares of the image's area; an object on an edge belongs to the larger sizes.
EDGES = (0.001, 0.01, 0.1)
NEIGHBOURS = np.ones((3, 3), dtype=bool)

SizeRow = list[int]
HitRow = list[float]


def label_regions(label: np.ndarray, ignore_index: int = 255) -> tuple[np.ndarray, int]:
    """Returns each pixel's object, (H, W) from 1 on and 0 where the label is void, and the number of objects.

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
    """Returns the objects of one image by size, and what each prediction makes of them.

    Args:
        label: (H, W) integers, tensor or array.
        predictions: (H, W) integers each.
        ignore_index: label of void pixels.

    Returns:
        A row of [size, objects, pixels] for each size that occurs, an index into the sizes from small to large; and for
        each prediction rows of [correct pixels, sum over objects of the share of their pixels that is correct].
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
