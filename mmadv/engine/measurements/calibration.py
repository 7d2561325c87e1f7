"""Calibration and confidence on clean, corrupted and attacked images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from torch import Tensor

from mmadv.corruptions import FROST, Severity, corruptions_of, severities_of
from mmadv.corruptions import frost_photographs as read_photographs
from mmadv.engine.corrupted_images import CorruptedImages
from mmadv.errors import UserError
from mmadv.fields import Range
from mmadv.report.calibration import CalibrationSummary, ConditionResult, ReliabilityBin, figures, header
from mmadv.report.evaluation import CLEAN
from mmadv.report.measurement import Measurement, Option, Outcome, Section, register_measurement
from mmadv.report.table import Table
from mmadv.robustness import CalibrationSums, calibration_intervals, calibration_metrics, calibration_sums
from mmadv.robustness.calibration import BINS, RANKS

FILE_NAME = 'calibration.csv'
CORRUPTED = 'corrupted'
SEVERITY = 3
# More bins would be as many as there are pixels.
LARGEST_BINS = 1000


@register_measurement
@dataclass
class Calibration(Measurement):
    """Measures how well the confidence of the model tells its errors: clean, corrupted, and attacked at every radius.

    Each condition costs a forward pass, and 'corrupted' one for each corruption. The attacked images are the results of
    the attack; of an ensemble those of the worst attack. The record of an image has condition -> sums, so memory does
    not grow with the pixels of the dataset.

    Args:
        bins: number of bins of the confidence.
        corruptions: names or groups of corruptions of the condition 'corrupted'; None leaves it out.
        severity: severity of the corruptions.
    """

    bins: Annotated[int, Range(1, LARGEST_BINS)] = BINS
    corruptions: Sequence[str] | None = None
    severity: Severity = SEVERITY

    name: ClassVar[str] = 'calibration'
    key: ClassVar[str] = 'calibration'
    summary: ClassVar[Any] = CalibrationSummary
    options: ClassVar[tuple[Option, ...]] = (
        Option(
            '--calibration',
            'bins',
            {
                'nargs': '?',
                'const': BINS,
                'metavar': 'BINS',
                'help': f'measure calibration, Brier score, entropy and risk-coverage, clean and attacked (default: '
                f'{BINS} bins)',
            },
        ),
        Option(
            '--calibration-corruptions',
            'corruptions',
            {'nargs': '*', 'metavar': 'NAME', 'help': 'measure it under these corruptions too (default: all 15)'},
        ),
        Option(
            '--calibration-severity',
            'severity',
            {'metavar': 'N', 'help': f'severity of these corruptions (default: {SEVERITY})'},
        ),
    )

    def __post_init__(self) -> None:
        severities_of([self.severity], 'Calibration.severity')
        self._corruptions: tuple[str, ...] = ()
        if self.corruptions is not None:
            self._corruptions = corruptions_of(self.corruptions, 'Calibration.corruptions')

    def settings(self, spec: Any) -> Any:
        return {'bins': self.bins, 'corruptions': list(self._corruptions), 'severity': self.severity}

    def check(self, spec: Any) -> None:
        if FROST in self._corruptions:
            read_photographs()

    def measure(self, context: Any, group: Any) -> list[Any]:
        """Returns condition -> sums, for each image."""
        values: list[dict[str, Any]] = [{} for _ in group.names]
        for condition, images in self._conditions(context, group):
            sums = self._sums(group, images)
            for value, one in zip(values, sums, strict=True):
                before = from_rows(value[condition], one.classes.shape[:2]) if condition in value else None
                value[condition] = to_rows(one if before is None else before + one)
        return values

    def _conditions(self, context: Any, group: Any) -> Any:
        """Yields each condition and its images, (n, C, h, w); a condition may come several times."""
        yield CLEAN, group.images
        if self._corruptions:
            corrupted = CorruptedImages(group, context)
            for name in self._corruptions:
                yield CORRUPTED, corrupted(name, self.severity)
        for radius, attacked in group.attacked.items():
            if attacked.images is not None:
                yield radius, attacked.images

    def _sums(self, group: Any, images: Tensor) -> list[CalibrationSums]:
        logits = group.model(images).detach()
        labels = group.labels.to(logits.device)
        pairs = zip(logits, labels, strict=True)
        return [calibration_sums(one, label, self.bins, group.ignore_index) for one, label in pairs]

    def summarise(self, context: Any, outcome: Outcome) -> CalibrationSummary:
        """Returns the metrics of each condition over all images."""
        shape = (len(outcome.evaluation.classes), self.bins)
        names = list(outcome.records[0].measurements[self.key])
        conditions = {}
        for name in names:
            images = [from_rows(record.measurements[self.key][name], shape) for record in outcome.records]
            total = images[0]
            for one in images[1:]:
                total = total + one
            values = {metric: _known(value) for metric, value in calibration_metrics(total).items()}
            conditions[name] = ConditionResult(values, calibration_intervals(images), _reliability(total))
        return CalibrationSummary(self.bins, self._corruptions, self.severity, conditions)

    def write(self, context: Any, folder: Path, outcome: Outcome, summary: CalibrationSummary) -> CalibrationSummary:
        """Writes one row for each condition and metric, with its interval."""
        summary.long_table().write_csv(folder / FILE_NAME)
        return summary

    @classmethod
    def tables(cls, summary: CalibrationSummary) -> list[Table]:
        return [summary.table()]

    @classmethod
    def curves(cls, summaries: Mapping[str, CalibrationSummary]) -> list[str]:
        """Returns a figure for each run: accuracy by confidence, and entropy of right and wrong pixels."""
        return figures(summaries)

    @classmethod
    def section(cls, summaries: Mapping[str, CalibrationSummary]) -> Section:
        """Returns the metrics, one row for each run and condition."""
        rows = tuple((name, *row) for name, summary in summaries.items() for row in summary.rows())
        table = Table(('run', *header()), rows, text_columns=2, caption='Entropy in nats', grouped=True)
        return Section('Calibration and confidence', table, {name: [] for name in summaries})

    @classmethod
    def check_summary(cls, summary: CalibrationSummary, evaluation: Any, where: str) -> None:
        summary.check(where)


def to_rows(sums: CalibrationSums) -> dict[str, Any]:
    """Returns the sums of an image as rows for JSON: the indexes of an entry, then its values; no empty entries."""
    rows: dict[str, Any] = {'totals': sums.totals.tolist()}
    for name, counts in (('confidence', 2), ('classes', 2), ('ranks', 2)):
        array = getattr(sums, name)
        rows[name] = [
            [*map(int, place), *map(int, array[tuple(place)][:counts]), *map(float, array[tuple(place)][counts:])]
            for place in np.argwhere(array[..., 0] > 0)
        ]
    return rows


def from_rows(rows: Mapping[str, Any], shape: tuple[int, int]) -> CalibrationSums:
    """Returns the sums that ``to_rows`` wrote; ``shape`` has the numbers of classes and bins."""
    classes, bins = shape
    arrays = {'confidence': np.zeros((bins, 3)), 'classes': np.zeros((classes, bins, 3)), 'ranks': np.zeros((RANKS, 2))}
    for name, array in arrays.items():
        depth = array.ndim - 1
        for row in rows[name]:
            if any(place >= size for place, size in zip(row[:depth], array.shape, strict=False)):
                raise UserError(f'a stored calibration has the entry {row}, which is none of {array.shape}; restart it')
            array[tuple(row[:depth])] = row[depth:]
    return CalibrationSums(**arrays, totals=np.array(rows['totals']))


def _known(value: float) -> float | None:
    """Returns None for nan, and zero for a negative rounding error."""
    return None if math.isnan(value) else max(value, 0.0)


def _reliability(sums: CalibrationSums) -> tuple[ReliabilityBin, ...]:
    rows = [row for row in sums.confidence if row[0]]
    return tuple(ReliabilityBin(int(n), min(total / n, 1.0), right / n) for n, right, total in rows)
