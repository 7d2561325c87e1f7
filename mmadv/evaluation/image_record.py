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

import json
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, overload

import numpy as np
import torch

from mmadv.robustness import Counts, count
from mmadv.robustness.object_sizes import hits_by_size

Areas = list[list[int]]


class Records(Sequence[dict[str, Any]]):
    """Records of many images, held as JSON text: a tenth of the memory of the values, which are made when asked for.

    Of several records of an image the last counts, and one of a failure only where there is no other. They are in the
    order of the images' indexes.

    Args:
        texts: records as JSON text.

    Attributes:
        failed: the records of the images that the model failed on, which are not among the records.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        done: dict[int, str] = {}
        failed: dict[int, dict[str, Any]] = {}
        for text in texts:
            record = json.loads(text)
            if 'failed' in record:
                failed[record['index']] = record
            else:
                done[record['index']] = text
        self._texts = [done[index] for index in sorted(done)]
        self.failed = [failed[index] for index in sorted(failed) if index not in done]

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, position: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, position: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, position: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(position, slice):
            return [json.loads(text) for text in self._texts[position]]
        return json.loads(self._texts[position])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Records) and list(self) == list(other)


def to_text(record: Mapping[str, Any]) -> str:
    """Returns a record as JSON text, without spaces."""
    return json.dumps(record, separators=(',', ':'))


def image_record(sample: Mapping[str, Any], num_classes: int) -> dict[str, Any]:
    """Returns the record of a data sample that ``AttackTestLoop`` has predicted.

    Args:
        sample: as a mapping.
        num_classes: K.
    """
    label, ignore_index = sample['gt_sem_seg']['data'].squeeze(0), int(sample['attack']['ignore_index'])
    void = tuple(sample['attack'].get('void', ()))

    def areas(prediction: torch.Tensor) -> Areas:
        return to_areas(count(prediction.long()[None], label[None], num_classes, ignore_index, void))

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
        'objects': objects_of(sample, _without(void, label, ignore_index), ignore_index),
        **({'reached': reached} if reached else {}),
        **sample['attack'].get('supplements', {}),
    }


def _without(void: Sequence[int], label: torch.Tensor, ignore_index: int) -> torch.Tensor:
    if not void:
        return label
    label = label.long()
    return torch.where(torch.isin(label, label.new_tensor(void)), ignore_index, label)


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


def to_counts(areas: Iterable[Areas], num_classes: int) -> Counts:
    """Returns the counts of N images from their areas, which are read once."""
    table = Table()
    for rows in areas:
        table.append(rows)
    return table.counts(num_classes)


class Table:
    """The areas of image after image, packed."""

    def __init__(self) -> None:
        self._cells = array('q')
        self._images = 0

    def append(self, areas: Areas) -> None:
        """Takes the areas of the next image."""
        for row in areas:
            self._cells.extend((self._images, *row))
        self._images += 1

    def counts(self, num_classes: int) -> Counts:
        """Returns the counts of all images."""
        counts = np.zeros((3, self._images, num_classes), dtype=np.int64)
        image, class_, *values = np.array(self._cells, dtype=np.int64).reshape(-1, 5).T
        counts[:, image, class_] = values
        return Counts(*counts)
