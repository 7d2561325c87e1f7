"""The result of one image as a JSON-able record: what a store keeps, and what every number is computed from.

A record has ``index`` and ``image``, the image's index and name; ``digest``, a checksum of its files; ``title`` of
the attack; ``ignore_index``; ``clean``: areas; ``attacked``: radius -> member -> areas; and ``passes``: radius ->
[forward, backward]. An attack with a target adds ``reached``: radius -> [pixels reached, pixels wanted]. Areas are
rows of [class, intersection, predicted pixels, labelled pixels], for the classes that occur. Where the model failed
on the image, ``failed`` gives the reason, and there are no areas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mmadv.robustness import Counts, count

Areas = list[list[int]]


def image_record(sample: Mapping[str, Any], num_classes: int) -> dict[str, Any]:
    """Returns the record of a data sample that ``AttackTestLoop`` has predicted.

    Args:
        sample: as a mapping.
        num_classes: K.
    """
    label, ignore_index = sample['gt_sem_seg']['data'].squeeze(0), int(sample['attack']['ignore_index'])

    def areas(prediction: torch.Tensor) -> Areas:
        return to_areas(count(prediction.long()[None], label[None], num_classes, ignore_index))

    reached = sample['attack'].get('reached')
    return {
        'index': int(sample['sample_idx']),
        'image': sample['image_name'],
        'digest': sample.get('digest'),
        'title': sample['attack']['title'],
        'ignore_index': ignore_index,
        'passes': {radius: list(passes) for radius, passes in sample['attack']['passes'].items()},
        'clean': areas(sample['pred_sem_seg']['data'].squeeze(0)),
        'attacked': {
            radius: {name: areas(one) for name, one in predictions.items()}
            for radius, predictions in sample['adversarial'].items()
        },
        **({'reached': reached} if reached else {}),
    }


def to_areas(counts: Counts) -> Areas:
    """Returns the counts of one image as rows, without the classes that do not occur.

    >>> to_areas(Counts(*(np.array([area]) for area in ([0, 5], [0, 6], [0, 9]))))
    [[1, 5, 6, 9]]
    """
    table = np.stack([counts.intersection[0], counts.prediction[0], counts.label[0]], axis=1)
    return [[int(k), *map(int, table[k])] for k in np.flatnonzero(table.any(axis=1))]


def to_counts(areas: Sequence[Areas], num_classes: int) -> Counts:
    """Returns the counts of N images from their areas."""
    table = np.zeros((3, len(areas), num_classes), dtype=np.int64)
    for image, rows in enumerate(areas):
        for k, *values in rows:
            table[:, image, k] = values
    return Counts(*table)
