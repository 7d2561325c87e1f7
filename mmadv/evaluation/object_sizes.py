"""Accuracy by object size over a dataset, from the records of its images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmadv.robustness.object_sizes import EDGES

SIZES = len(EDGES) + 1


def object_sizes(records: Sequence[Mapping[str, Any]], per_image: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Returns ``edges``, ``objects`` and ``pixels`` of each size, and accuracies ``clean`` and ``attacked`` by radius.

    The attacked ones are of each image's worst member. None where the records of some images have no objects, since an
    earlier version made them.

    Args:
        records: of the images.
        per_image: of the same images, with the ``worst_member`` of every radius.
    """
    totals = np.zeros((SIZES, 2), dtype=np.int64)
    clean = np.zeros((SIZES, 2))
    attacked: dict[str, np.ndarray] = {}
    for record, image in zip(records, per_image, strict=True):
        if 'objects' not in record:
            return None
        objects = record['objects']
        for size, *values in objects['sizes']:
            totals[size] += values
        _add(clean, objects['sizes'], objects['clean'])
        for radius, members in objects['attacked'].items():
            worst = image['attacked'][radius]['worst_member'] or next(iter(members))
            _add(attacked.setdefault(radius, np.zeros((SIZES, 2))), objects['sizes'], members[worst])
    return {
        'edges': list(EDGES),
        'objects': totals[:, 0].tolist(),
        'pixels': totals[:, 1].tolist(),
        'clean': _accuracies(clean, totals),
        'attacked': {radius: _accuracies(sums, totals) for radius, sums in attacked.items()},
    }


def _add(sums: np.ndarray, sizes: Sequence[Sequence[int]], hits: Sequence[Sequence[float]]) -> None:
    """Adds the hits of an image, a row for each of its ``sizes``, to ``sums``, (sizes, 2)."""
    for (size, *_), values in zip(sizes, hits, strict=True):
        sums[size] += values


def _accuracies(sums: np.ndarray, totals: np.ndarray) -> dict[str, list[float | None]]:
    """Returns ``aAcc``, over the pixels of each size, and ``object_mean``, the mean over its objects; None without."""
    return {
        name: [float(part / whole) if whole else None for part, whole in zip(sums[:, n], totals[:, 1 - n], strict=True)]
        for n, name in enumerate(('aAcc', 'object_mean'))
    }
