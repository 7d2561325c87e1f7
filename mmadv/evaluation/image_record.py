"""The result of one image as a JSON-able record: what a store keeps, and what every number is computed from.

A record has ``index`` and ``image``, the image's index and name; ``digest``, a checksum of its files; ``title`` of
the attack; ``ignore_index``; ``clean``: areas; ``attacked``: radius -> member -> areas; and ``passes``: radius ->
[forward, backward]. ``objects`` has, by object size, ``sizes``: rows of [size, objects, pixels], and ``clean`` and
``attacked``, which hold rows of [correct pixels, sum of the objects' shares of correct pixels] in the place of
areas. An attack with a target adds ``reached``: radius -> [pixels reached, pixels wanted], every supplement of the
loop an entry of its own. Areas are
rows of [class, intersection, predicted pixels, labelled pixels], for the classes that occur. Where the model failed
on the image, ``failed`` gives the reason, and there are no areas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mmadv.robustness import Counts, count
from mmadv.robustness.object_sizes import hits_by_size

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
        'objects': objects_of(sample, label, ignore_index),
        **({'reached': reached} if reached else {}),
        **sample['attack'].get('supplements', {}),
    }


def objects_of(sample: Mapping[str, Any], label: torch.Tensor, ignore_index: int) -> dict[str, Any]:
    """Returns the ``objects`` of a record.

    Args:
        sample: as a mapping.
        label: (H, W) integers.
        ignore_index: label of the pixels that are in no count.
    """
    keys = [(radius, name) for radius, predictions in sample['adversarial'].items() for name in predictions]
    predictions = [sample['pred_sem_seg']['data'].squeeze(0), *(sample['adversarial'][r][name] for r, name in keys)]
    sizes, (clean, *hits) = hits_by_size(label, predictions, ignore_index)
    attacked: dict[str, dict[str, Any]] = {radius: {} for radius in sample['adversarial']}
    for (radius, name), rows in zip(keys, hits, strict=True):
        attacked[radius][name] = rows
    return {'sizes': sizes, 'clean': clean, 'attacked': attacked}


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
