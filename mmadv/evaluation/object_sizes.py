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
    if not all('objects' in record for record in records):
        return None
    found = [record['objects'] for record in records]
    totals = np.zeros((SIZES, 2), dtype=np.int64)
    for objects in found:
        for size, *values in objects['sizes']:
            totals[size] += values
    result: dict[str, Any] = {'edges': list(EDGES), 'objects': totals[:, 0].tolist(), 'pixels': totals[:, 1].tolist()}
    result['clean'] = _accuracies(found, [objects['clean'] for objects in found], totals)
    result['attacked'] = {}
    for radius, members in found[0]['attacked'].items():
        first = next(iter(members))
        worst = [image['attacked'][radius]['worst_member'] or first for image in per_image]
        hits = [objects['attacked'][radius][name] for objects, name in zip(found, worst, strict=True)]
        result['attacked'][radius] = _accuracies(found, hits, totals)
    return result


def _accuracies(
    found: Sequence[Mapping[str, Any]], hits: Sequence[Sequence[Sequence[float]]], totals: np.ndarray
) -> dict[str, list[float | None]]:
    """Returns ``aAcc``, over the pixels of each size, and ``object_mean``, the mean over its objects; None without."""
    sums = np.zeros((SIZES, 2))
    for objects, rows in zip(found, hits, strict=True):
        for (size, *_), values in zip(objects['sizes'], rows, strict=True):
            sums[size] += values
    return {
        name: [float(part / whole) if whole else None for part, whole in zip(sums[:, n], totals[:, 1 - n], strict=True)]
        for n, name in enumerate(('aAcc', 'object_mean'))
    }
