"""Accuracy by object size over a dataset, from the records of its images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmadv.report.evaluation import ImageResult, ObjectSizes, SizeAccuracies
from mmadv.robustness.object_sizes import EDGES

SIZES = len(EDGES) + 1


def object_sizes(records: Sequence[Mapping[str, Any]], per_image: Sequence[ImageResult]) -> ObjectSizes | None:
    """Returns the accuracy by object size, None where an earlier version made the records of some images.

    The attacked accuracies are those of each image's worst member.

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
            worst = image.attacked[radius].worst_member or next(iter(members))
            _add(attacked.setdefault(radius, np.zeros((SIZES, 2))), objects['sizes'], members[worst])
    return ObjectSizes(
        edges=tuple(EDGES),
        objects=tuple(totals[:, 0].tolist()),
        pixels=tuple(totals[:, 1].tolist()),
        clean=_accuracies(clean, totals),
        attacked={radius: _accuracies(sums, totals) for radius, sums in attacked.items()},
    )


def _add(sums: np.ndarray, sizes: Sequence[Sequence[int]], hits: Sequence[Sequence[float]]) -> None:
    """Adds the hits of an image, a row for each of its ``sizes``, to ``sums``, (sizes, 2)."""
    for (size, *_), values in zip(sizes, hits, strict=True):
        sums[size] += values


def _accuracies(sums: np.ndarray, totals: np.ndarray) -> SizeAccuracies:
    """Returns the accuracies over the pixels of each size, and the means over its objects; None without any."""
    pixels, objects = (
        tuple(float(part / whole) if whole else None for part, whole in zip(sums[:, n], totals[:, 1 - n], strict=True))
        for n in range(2)
    )
    return SizeAccuracies(pixels, objects)
