"""The results on calibration: their numbers as types, their table and their figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmadv.errors import UserError
from mmadv.fields import NotNegative, Positive, Share
from mmadv.report.curve import STYLES, svg_text
from mmadv.report.drawing import plain_text
from mmadv.report.evaluation import Amount
from mmadv.report.schema import Schema, entry
from mmadv.report.table import Table

# Metric -> its title, and whether it is printed in percent.
COLUMNS = {
    'accuracy': ('aAcc, %', True),
    'confidence': ('confidence, %', True),
    'ece': ('ECE, %', True),
    'ece_debiased': ('debiased, %', True),
    'ece_classwise': ('class-wise, %', True),
    'brier': ('Brier', False),
    'entropy_right': ('entropy right', False),
    'entropy_wrong': ('entropy wrong', False),
    'aurc': ('AURC, %', True),
    'excess_aurc': ('excess AURC, %', True),
}


@dataclass(frozen=True)
class ReliabilityBin(Schema):
    """The pixels of one bin: their number, mean confidence and accuracy."""

    pixels: NotNegative
    confidence: Share
    accuracy: Share


@dataclass(frozen=True)
class ConditionResult(Schema):
    """The calibration on clean, corrupted or attacked images.

    Attributes:
        values: metric -> value; None if it is undefined.
        intervals: metric -> 95 % interval over resampled images; None if it is undefined.
        reliability: the bins that have a pixel, from low to high confidence.
    """

    values: dict[str, Amount | None]
    intervals: dict[str, tuple[Amount, Amount] | None]
    reliability: tuple[ReliabilityBin, ...] = entry()


@dataclass(frozen=True)
class CalibrationSummary(Schema):
    """Calibration and confidence.

    Attributes:
        bins: number of bins.
        corruptions: the corruptions of the condition 'corrupted', all of its pixels together.
        severity: their severity.
        conditions: 'clean', 'corrupted' or a radius -> result.
    """

    bins: Positive
    corruptions: tuple[str, ...]
    severity: Positive
    conditions: dict[str, ConditionResult]

    def check(self, where: str) -> None:
        """Raises UserError unless each condition has all metrics."""
        for name, result in self.conditions.items():
            if set(result.values) != set(COLUMNS):
                raise UserError(f'{where}.conditions.{name}.values must have {", ".join(COLUMNS)}')

    def rows(self) -> list[tuple[str, ...]]:
        """Returns the cells of a table, one row for each condition."""
        return [
            (name, *(_cell(result.values[metric], share) for metric, (_, share) in COLUMNS.items()))
            for name, result in self.conditions.items()
        ]

    def table(self) -> Table:
        """Returns the metrics, one row for each condition."""
        caption = f'Calibration, {self.bins} bins; entropy in nats'
        return Table(header(), tuple(self.rows()), text_columns=1, caption=caption)

    def long_table(self) -> Table:
        """Returns one row for each condition and metric, with its interval, as fractions."""
        rows = tuple(
            (name, metric, value, *(result.intervals.get(metric) or (None, None)))
            for name, result in self.conditions.items()
            for metric, value in result.values.items()
        )
        return Table(('condition', 'metric', 'value', 'low', 'high'), rows, text_columns=2)


def header() -> tuple[str, ...]:
    """Returns the titles of the columns of ``CalibrationSummary.rows``."""
    return ('condition', *(title for title, _ in COLUMNS.values()))


def _cell(value: float | None, share: bool) -> str:
    if value is None:
        return '-'
    return f'{100 * value:.2f}' if share else f'{value:.3f}'


@plain_text
def calibration_svg(name: str, summary: CalibrationSummary) -> str:
    """Returns a figure of one run as an svg element: accuracy by confidence, and the entropy of right and wrong pixels.

    Does the model know that it is attacked? If it does, its points stay on the diagonal, and its wrong pixels keep a
    larger entropy than its right ones.
    """
    figure = Figure(figsize=(10, 4), layout='constrained')
    FigureCanvasAgg(figure)
    reliability, entropies = figure.subplots(1, 2)
    reliability.plot((0, 100), (0, 100), color='grey', linewidth=1)
    for number, (condition, result) in enumerate(summary.conditions.items()):
        colour, marker, dash = STYLES[number % len(STYLES)]
        confidence = [100 * one.confidence for one in result.reliability]
        accuracy = [100 * one.accuracy for one in result.reliability]
        reliability.plot(confidence, accuracy, color=colour, marker=marker, linestyle=dash, label=condition)
    reliability.set(xlabel='confidence, %', ylabel='accuracy, %', xlim=(-2, 102), ylim=(-2, 102))
    reliability.legend()
    places = range(len(summary.conditions))
    for shift, kind in ((-0.2, 'right'), (0.2, 'wrong')):
        heights = [one.values[f'entropy_{kind}'] or 0 for one in summary.conditions.values()]
        colour = STYLES[0 if kind == 'right' else 1][0]
        entropies.bar([place + shift for place in places], heights, 0.4, color=colour, label=f'{kind} pixels')
    entropies.set_xticks(list(places), list(summary.conditions))
    entropies.set_ylabel('mean entropy, nats')
    entropies.legend()
    for axes in (reliability, entropies):
        axes.grid(alpha=0.3)
    figure.suptitle(f'Calibration: {name}' if name else 'Calibration')
    return svg_text(figure, f'calibration {name}'.strip())


def figures(summaries: Mapping[str, CalibrationSummary]) -> list[str]:
    """Returns the figure of each run."""
    return [calibration_svg(name, summary) for name, summary in summaries.items()]
