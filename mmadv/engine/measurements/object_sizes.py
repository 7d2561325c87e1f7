"""Accuracy by the size of the labelled objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mmadv.errors import UserError
from mmadv.fields import NotNegative, Share
from mmadv.report.evaluation import CLEAN, Evaluation
from mmadv.report.measurement import Measurement, Outcome, register_measurement
from mmadv.report.schema import Schema, entry
from mmadv.report.table import Table, percent
from mmadv.robustness.object_sizes import EDGES, hits_by_size

SIZES = len(EDGES) + 1
FILE_NAME = 'object_sizes.csv'


@dataclass(frozen=True)
class SizeAccuracies(Schema):
    """Accuracies by object size: over all pixels, and as the mean of the objects' own accuracies."""

    pixels: tuple[Share | None, ...] = entry(key='aAcc')
    objects: tuple[Share | None, ...] = entry(key='object_mean')


@dataclass(frozen=True)
class SizesSummary(Schema):
    """Accuracy by the size of the labelled objects.

    Attributes:
        edges: edges between the sizes, as shares of the image.
        objects: number of objects of each size.
        pixels: number of pixels of each size.
        clean: accuracies on the clean images.
        attacked: radius -> accuracies of the worst case.
    """

    edges: tuple[Share, ...]
    objects: tuple[NotNegative, ...]
    pixels: tuple[NotNegative, ...]
    clean: SizeAccuracies
    attacked: dict[str, SizeAccuracies]

    @property
    def columns(self) -> dict[str, SizeAccuracies]:
        """Returns the accuracies of the clean images and of the worst case at every radius."""
        return {CLEAN: self.clean, **self.attacked}


@register_measurement
@dataclass
class ObjectSizes(Measurement):
    """Counts correct pixels by the size of their labelled object; every run has this measurement.

    The record of an image has three parts, with one row for each object size:

    - ``sizes``: rows of [size, objects, pixels].
    - ``clean``: rows of [correct pixels, sum of the objects' shares of correct pixels].
    - ``attacked``: the same rows as ``clean``, for each radius and member.
    """

    name: ClassVar[str] = 'object_sizes'
    key: ClassVar[str] = 'objects'
    summary: ClassVar[Any] = SizesSummary

    @classmethod
    def implied_by(cls, attack: Any) -> Measurement | None:
        return cls()

    def settings(self, spec: Any) -> Any:
        return None

    def measure(self, context: Any, group: Any) -> list[Any]:
        keys = [(radius, name) for radius, attacked in group.attacked.items() for name in attacked.predictions]
        values = []
        for n, label in enumerate(group.labels):
            predictions = [group.clean[n], *(group.attacked[radius].predictions[name][n] for radius, name in keys)]
            sizes, (clean, *hits) = hits_by_size(label, predictions, group.ignore_index)
            attacked: dict[str, dict[str, Any]] = {radius: {} for radius in group.attacked}
            for (radius, name), rows in zip(keys, hits, strict=True):
                attacked[radius][name] = rows
            values.append({'sizes': sizes, 'clean': clean, 'attacked': attacked})
        return values

    def summarise(self, context: Any, outcome: Outcome) -> SizesSummary | None:
        """Returns the summary; None if an earlier version, which measured no objects, made some of the records."""
        totals = np.zeros((SIZES, 2), dtype=np.int64)
        clean = np.zeros((SIZES, 2))
        attacked: dict[str, np.ndarray] = {}
        for record, image in zip(outcome.records, outcome.images, strict=True):
            objects = record.measurements.get(self.key)
            if objects is None:
                return None
            for size, *values in objects['sizes']:
                totals[size] += values
            _add(clean, objects['sizes'], objects['clean'])
            for radius, members in objects['attacked'].items():
                worst = image.attacked[radius].worst_member or next(iter(members))
                _add(attacked.setdefault(radius, np.zeros((SIZES, 2))), objects['sizes'], members[worst])
        return SizesSummary(
            edges=tuple(EDGES),
            objects=tuple(totals[:, 0].tolist()),
            pixels=tuple(totals[:, 1].tolist()),
            clean=_accuracies(clean, totals),
            attacked={radius: _accuracies(sums, totals) for radius, sums in attacked.items()},
        )

    def write(self, context: Any, folder: Path, outcome: Outcome, summary: Any) -> Any:
        """Writes the accuracies as fractions; undefined ones are empty."""
        if summary is None:
            return None
        header = ['object size', 'objects', 'pixels']
        columns = []
        for radius, accuracies in summary.columns.items():
            header += [f'aAcc {radius}', f'object_mean {radius}']
            columns += [accuracies.pixels, accuracies.objects]
        rows = tuple(
            (name, summary.objects[n], summary.pixels[n], *(column[n] for column in columns))
            for n, name in enumerate(size_names(summary.edges))
        )
        Table(tuple(header), rows, text_columns=1).write_csv(folder / FILE_NAME)
        return summary

    @classmethod
    def check_summary(cls, summary: SizesSummary, evaluation: Evaluation, where: str) -> None:
        number = len(summary.edges) + 1
        of_sizes: list[tuple[float | None, ...]] = [summary.objects, summary.pixels]
        of_sizes += [values for part in summary.columns.values() for values in (part.pixels, part.objects)]
        if number < 2 or any(len(values) != number for values in of_sizes):
            raise UserError(f'{where} must have a value for each size between its edges')
        if not summary.attacked.keys() <= evaluation.attacked.keys():
            raise UserError(f'{where}.attacked has a radius that evaluation.attacked has not')

    @classmethod
    def tables(cls, summary: SizesSummary) -> list[Table]:
        """Returns percentages by object size: the accuracy over all pixels, and the mean of the objects' accuracies."""
        header = ['object size', 'number']
        columns = []
        for radius, accuracies in summary.columns.items():
            header += [f'pixels {radius}', f'objects {radius}']
            columns += [accuracies.pixels, accuracies.objects]
        rows = tuple(
            (name, str(summary.objects[n]), *(percent(column[n]) for column in columns))
            for n, name in enumerate(size_names(summary.edges))
        )
        caption = 'accuracy by size of the labelled region, as a share of the image; %'
        return [Table(tuple(header), rows, text_columns=1, caption=caption)]


def size_names(edges: Sequence[float]) -> list[str]:
    """Returns the names of the object sizes, as shares of the image.

    >>> size_names([0.001, 0.01])
    ['below 0.1 %', '0.1 to 1 %', '1 % and more']
    """
    texts = [f'{100 * edge:g}' for edge in edges]
    between = [f'{low} to {high} %' for low, high in pairwise(texts)]
    return [f'below {texts[0]} %', *between, f'{texts[-1]} % and more']


def _add(sums: np.ndarray, sizes: Sequence[Sequence[int]], hits: Sequence[Sequence[float]]) -> None:
    """Adds the hits of an image, one row for each of its ``sizes``, to ``sums`` of shape (sizes, 2)."""
    for (size, *_), values in zip(sizes, hits, strict=True):
        sums[size] += values


def _accuracies(sums: np.ndarray, totals: np.ndarray) -> SizeAccuracies:
    """Returns the accuracies over the pixels of each size, and the means over its objects; None for an empty size."""
    pixels, objects = (
        tuple(float(part / whole) if whole else None for part, whole in zip(sums[:, n], totals[:, 1 - n], strict=True))
        for n in range(2)
    )
    return SizeAccuracies(pixels, objects)
