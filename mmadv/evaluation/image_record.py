"""The result of one image. A store keeps these records, and every metric is computed from them."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import torch

from mmadv.report.schema import OTHERS, Schema, entry
from mmadv.robustness import Counts, count

# Rows of [class, intersection, predicted pixels, labelled pixels], for the classes that occur.
Areas = list[list[int]]


@dataclass(frozen=True)
class ImageRecord(Schema):
    """The result of one image.

    Attributes:
        index: the image's index in its dataset.
        image: the image's name.
        digest: checksum of the image's files.
        title: title of the attack.
        ignore_index: label of the pixels that every count leaves out.
        passes: radius -> [forward, backward] passes of the model.
        clean: areas of the clean prediction.
        attacked: radius -> name of an ensemble's attack, or 'attack' -> areas.
        reached: radius -> [pixels that reached their target, pixels with a target], for an attack with a target.
        measurements: key of a measurement -> its value.
    """

    index: int
    image: str
    digest: str | None
    title: str
    ignore_index: int
    passes: dict[str, tuple[int, int]]
    clean: list
    attacked: dict[str, dict[str, list]]
    reached: dict[str, tuple[int, int]] | None = entry(omit=True, default=None)
    measurements: dict[str, Any] = entry(keys=OTHERS, factory=dict)

    def to_text(self) -> str:
        """Returns the record as JSON text, without spaces."""
        return to_text(self.to_json())

    @classmethod
    def from_text(cls, text: str) -> ImageRecord:
        """Returns the record that ``to_text`` wrote."""
        return cls.from_json(json.loads(text), 'record')


@dataclass(frozen=True)
class FailedRecord(Schema):
    """An image that the model failed on; ``failed`` is the reason."""

    index: int
    image: str
    failed: str

    def to_text(self) -> str:
        """Returns the record as JSON text, without spaces."""
        return to_text(self.to_json())


class Records(Sequence[ImageRecord]):
    """Records of many images, stored as JSON text, which takes a tenth of the values' memory; access decodes them.

    If an image has several records, the last one counts. A record of a failure counts only if the image has no other.
    The records are in the order of the images' indexes.

    Args:
        texts: records as JSON text.

    Attributes:
        failed: the records of the images that the model failed on. They are not among the other records.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        done: dict[int, str] = {}
        failed: dict[int, FailedRecord] = {}
        for text in texts:
            record = json.loads(text)
            if 'failed' in record:
                failed[record['index']] = FailedRecord.from_json(record, 'record')
            else:
                done[record['index']] = text
        self._texts = [done[index] for index in sorted(done)]
        self.failed = [failed[index] for index in sorted(failed) if index not in done]

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, position: int) -> ImageRecord: ...

    @overload
    def __getitem__(self, position: slice) -> list[ImageRecord]: ...

    def __getitem__(self, position: int | slice) -> ImageRecord | list[ImageRecord]:
        if isinstance(position, slice):
            return [ImageRecord.from_text(text) for text in self._texts[position]]
        return ImageRecord.from_text(self._texts[position])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Records) and list(self) == list(other)


def to_text(record: Mapping[str, Any]) -> str:
    """Returns a record as JSON text, without spaces."""
    return json.dumps(record, separators=(',', ':'))


def image_record(sample: Mapping[str, Any], num_classes: int) -> ImageRecord:
    """Returns the record of a data sample that ``AttackTestLoop`` has predicted.

    Args:
        sample: the data sample as a mapping.
        num_classes: K.
    """
    label, attack = sample['gt_sem_seg']['data'].squeeze(0), sample['attack']
    ignore_index, void = int(attack['ignore_index']), tuple(attack.get('void', ()))

    def areas(prediction: torch.Tensor) -> Areas:
        return to_areas(count(prediction.long()[None], label[None], num_classes, ignore_index, void))

    return ImageRecord(
        index=int(sample['sample_idx']),
        image=sample['image_name'],
        digest=sample.get('digest'),
        title=attack['title'],
        ignore_index=ignore_index,
        passes={radius: tuple(passes) for radius, passes in attack['passes'].items()},
        clean=areas(sample['pred_sem_seg']['data'].squeeze(0)),
        attacked={
            radius: {name: areas(one) for name, one in predictions.items()}
            for radius, predictions in sample['adversarial'].items()
        },
        reached={radius: tuple(pixels) for radius, pixels in attack.get('reached', {}).items()} or None,
        measurements=dict(attack.get('measurements', {})),
    )


def to_areas(counts: Counts) -> Areas:
    """Returns the counts of one image as rows, without the classes that do not occur.

    >>> to_areas(Counts(*(np.array([area]) for area in ([0, 5], [0, 6], [0, 9]))))
    [[1, 5, 6, 9]]
    """
    table = np.stack([counts.intersection[0], counts.prediction[0], counts.label[0]], axis=1)
    return [[int(k), *map(int, table[k])] for k in np.flatnonzero(table.any(axis=1))]


def to_counts(areas: Iterable[Areas], num_classes: int) -> Counts:
    """Returns the counts of N images from their areas; reads ``areas`` once."""
    table = AreaTable()
    for rows in areas:
        table.append(rows)
    return table.counts(num_classes)


class AreaTable:
    """The areas of many images in a packed array."""

    def __init__(self) -> None:
        self._cells = array('q')
        self._images = 0

    def append(self, areas: Areas) -> None:
        """Adds the areas of the next image."""
        for row in areas:
            self._cells.extend((self._images, *row))
        self._images += 1

    def counts(self, num_classes: int) -> Counts:
        """Returns the counts of all images."""
        counts = np.zeros((3, self._images, num_classes), dtype=np.int64)
        image, class_, *values = np.array(self._cells, dtype=np.int64).reshape(-1, 5).T
        counts[:, image, class_] = values
        return Counts(*counts)
