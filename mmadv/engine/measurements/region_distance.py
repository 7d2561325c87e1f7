"""Accuracy outside the region of an attack, by the distance from the region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from scipy.ndimage import distance_transform_edt

from mmadv.errors import UserError
from mmadv.fields import NotNegative, Share
from mmadv.report.evaluation import CLEAN, Amount, Evaluation, Interval
from mmadv.report.measurement import Measurement, Option, Outcome, Section, register_measurement
from mmadv.report.schema import Schema
from mmadv.report.table import Cell, Table, with_interval
from mmadv.robustness.bootstrap import LEVEL, SAMPLES, intervals

# Distances between the bands, in pixels of the label map.
EDGES = (8, 16, 32, 64, 128, 256)
FILE_NAME = 'region_distance.csv'


@dataclass(frozen=True)
class DistanceSummary(Schema):
    """Accuracy by the distance from the region.

    Attributes:
        edges: distances between the bands, in pixels of the label map.
        images: number of images with a region.
        pixels: number of labelled pixels outside the region in each band, from near to far.
        clean: accuracy of each band on the clean images; None without a pixel.
        attacked: radius -> accuracy of each band in the worst case.
        intervals: 'clean' or radius -> 95 % interval of each band over resampled images; None with fewer than two
            images, or without a pixel.
    """

    edges: tuple[Amount, ...]
    images: NotNegative
    pixels: tuple[NotNegative, ...]
    clean: tuple[Share | None, ...]
    attacked: dict[str, tuple[Share | None, ...]]
    intervals: dict[str, tuple[Interval | None, ...]] | None = None

    @property
    def columns(self) -> dict[str, tuple[Share | None, ...]]:
        """Returns the accuracies on the clean images and in the worst case at every radius."""
        return {CLEAN: self.clean, **self.attacked}

    def bands(self) -> list[str]:
        """Returns the names of the bands.

        >>> DistanceSummary((8, 16), 1, (1, 1, 1), (1, 1, 1), {}).bands()
        ['to 8', '8 to 16', 'beyond 16']
        """
        between = (f'{low:g} to {high:g}' for low, high in pairwise(self.edges))
        return [f'to {self.edges[0]:g}', *between, f'beyond {self.edges[-1]:g}']

    def interval(self, column: str, band: int) -> Interval | None:
        """Returns the interval of a band on the clean images or at a radius."""
        return (self.intervals or {})[column][band] if column in (self.intervals or {}) else None

    def table(self) -> Table:
        """Returns the accuracy of each band in percent, with its interval."""
        rows: tuple[tuple[Cell, ...], ...] = tuple(
            (
                name,
                self.pixels[n],
                *(with_interval(column[n], self.interval(of, n)) for of, column in self.columns.items()),
            )
            for n, name in enumerate(self.bands())
        )
        caption = f'Accuracy by distance from the region in pixels, % ({self.images} images)'
        return Table(('distance', 'pixels', *self.columns), rows, text_columns=1, caption=caption)


@register_measurement
@dataclass
class RegionDistance(Measurement):
    """Counts correct pixels outside the region of the attack, by their distance from it.

    The record of an image with a region has a row for each band, in ``bands``: [pixels, correct clean ones, correct
    ones at each radius].

    Raises:
        UserError: the evaluation has no region.
    """

    name: ClassVar[str] = 'region_distance'
    key: ClassVar[str] = 'region_distance'
    summary: ClassVar[Any] = DistanceSummary
    options: ClassVar[tuple[Option, ...]] = (
        Option(
            '--by-distance',
            None,
            {'action': 'store_true', 'help': 'with --region or a patch: give the accuracy by the distance from it'},
        ),
    )

    def check(self, spec: Any) -> None:
        if not spec.region_text:
            raise UserError('RegionDistance needs test_cfg.region or a patch; give one, or leave RegionDistance out')

    def measure(self, context: Any, group: Any) -> list[Any]:
        """Returns the rows of each image; None without a region."""
        values: list[Any] = []
        for n, region in enumerate(group.regions.numpy()):
            if not region.any():
                values.append(None)
                continue
            labels = group.labels[n].numpy()
            valid = (labels != group.ignore_index) & ~region
            band = np.digitize(distance_transform_edt(~region)[valid], EDGES)
            predictions = [group.clean[n], *(attacked.worst[n] for attacked in group.attacked.values())]
            correct = [(one.numpy() == labels)[valid] for one in predictions]
            counts = [np.bincount(band, minlength=len(EDGES) + 1)]
            counts += [np.bincount(band[hit], minlength=len(EDGES) + 1) for hit in correct]
            values.append({'bands': np.stack(counts, axis=1).tolist()})
        return values

    def summarise(self, context: Any, outcome: Outcome) -> DistanceSummary:
        radii = list(outcome.evaluation.attacked)
        values = [record.measurements.get(self.key) for record in outcome.records]
        rows = [value['bands'] for value in values if value is not None]
        total = np.sum(rows, axis=0) if rows else np.zeros((len(EDGES) + 1, 2 + len(radii)), dtype=int)
        pixels = total[:, 0]
        clean, *attacked = (
            tuple(float(hits) / int(number) if number else None for hits, number in zip(column, pixels, strict=True))
            for column in total[:, 1:].T
        )
        columns = dict(zip(radii, attacked, strict=True))
        return DistanceSummary(EDGES, len(rows), tuple(pixels.tolist()), clean, columns, _intervals(rows, radii))

    def write(self, context: Any, folder: Path, outcome: Outcome, summary: DistanceSummary) -> DistanceSummary:
        """Writes the accuracies as fractions."""
        rows = tuple(
            (
                name,
                summary.pixels[n],
                *(column[n] for column in summary.columns.values()),
                *(end for of in summary.columns for end in summary.interval(of, n) or (None, None)),
            )
            for n, name in enumerate(summary.bands())
        )
        ends = (f'{end} {name}' for name in summary.columns for end in ('low', 'high'))
        header = ('distance', 'pixels', *(f'aAcc {name}' for name in summary.columns), *ends)
        Table(header, rows, text_columns=1).write_csv(folder / FILE_NAME)
        return summary

    @classmethod
    def tables(cls, summary: DistanceSummary) -> list[Table]:
        return [summary.table()]

    @classmethod
    def section(cls, summaries: Mapping[str, DistanceSummary]) -> Section | None:
        """Returns the accuracy of each band, a row for each run and band; None if the runs have different radii."""
        columns = {tuple(summary.columns) for summary in summaries.values()}
        if len(columns) > 1:
            return None
        rows = tuple((name, *row) for name, summary in summaries.items() for row in summary.table().rows)
        header = ('run', 'distance', 'pixels', *columns.pop())
        caption = 'Accuracy outside the region by distance from it in pixels, %'
        table = Table(header, rows, text_columns=2, caption=caption, grouped=True)
        return Section('Distance from the region', table, {name: [] for name in summaries})

    @classmethod
    def check_summary(cls, summary: DistanceSummary, evaluation: Evaluation, where: str) -> None:
        number = len(summary.edges) + 1
        if number < 2 or any(len(values) != number for values in (summary.pixels, *summary.columns.values())):
            raise UserError(f'{where} must have a value for each band between its edges')
        if summary.intervals is not None and any(len(one) != number for one in summary.intervals.values()):
            raise UserError(f'{where}.intervals must have a value for each band between its edges')
        if not summary.attacked.keys() <= evaluation.attacked.keys():
            raise UserError(f'{where}.attacked has a radius that evaluation.attacked has not')


def _intervals(rows: Sequence[Any], radii: Sequence[str]) -> dict[str, tuple[Interval | None, ...]]:
    """Returns 'clean' or radius -> the interval of each band over resampled images.

    Args:
        rows: the ``bands`` of each image with a region.
        radii: the radii of the columns after the clean one.
    """
    bands = np.asarray(rows, dtype=np.float64).reshape(len(rows), len(EDGES) + 1, 2 + len(radii))

    def accuracies(weights: np.ndarray) -> dict[str, np.ndarray]:
        drawn = np.einsum('sn,nbc->sbc', weights, bands)
        pixels = drawn[..., :1]
        share = np.divide(drawn[..., 1:], pixels, out=np.full_like(drawn[..., 1:], np.nan), where=pixels > 0)
        return {
            f'{column} {band}': share[:, band, column] for column, band in np.ndindex(1 + len(radii), share.shape[1])
        }

    of_places = intervals(len(rows), accuracies, SAMPLES, LEVEL, 0)
    return {
        name: tuple(of_places[f'{column} {band}'] for band in range(len(EDGES) + 1))
        for column, name in enumerate((CLEAN, *radii))
    }
