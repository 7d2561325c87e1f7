"""The results under common corruptions: their numbers as types, and their tables and plot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmadv.errors import UserError
from mmadv.fields import Share
from mmadv.report.curve import STYLES, svg_text
from mmadv.report.drawing import plain_text
from mmadv.report.evaluation import Amount, Interval
from mmadv.report.schema import Schema, entry
from mmadv.report.table import Table, percent, with_interval

ALL = 'mean'


@dataclass(frozen=True)
class SeverityResult(Schema):
    """The metrics under one corruption at one severity."""

    accuracy: Share | None = entry(key='aAcc')
    miou: Share | None = entry(key='mIoU')
    interval: Interval | None = entry(key='interval')


@dataclass(frozen=True)
class MeanResult(Schema):
    """A mean of mIoUs, and what it is of the clean mIoU.

    Attributes:
        miou: the mean; None if one of the mIoUs is undefined.
        interval: 95 % interval of the mean over resampled images.
        retention: the mean divided by the clean mIoU; None if that is 0 or undefined.
        retention_interval: its interval; each resample divides by the clean mIoU of the same images.
    """

    miou: Share | None = entry(key='mIoU')
    interval: Interval | None = entry(key='interval')
    retention: Amount | None = entry(key='retention')
    retention_interval: tuple[Amount, Amount] | None = entry(key='retention_interval')


@dataclass(frozen=True)
class CorruptionsSummary(Schema):
    """The results under common corruptions.

    Attributes:
        scale: 'published' or 'image', the scale of lengths in pixels.
        severities: the severities.
        corrupted: corruption -> severity as text -> metrics.
        means: corruption -> mean over its severities.
        mean: mean over all corruptions and severities.
    """

    scale: str
    severities: tuple[int, ...]
    corrupted: dict[str, dict[str, SeverityResult]]
    means: dict[str, MeanResult]
    mean: MeanResult

    def check(self, where: str) -> None:
        """Raises UserError unless the parts agree."""
        if self.corrupted.keys() != self.means.keys() or not self.corrupted:
            raise UserError(f'{where}.means must have the corruptions of .corrupted, {list(self.corrupted)}')
        for name, results in self.corrupted.items():
            if list(results) != list(map(str, self.severities)):
                raise UserError(f'{where}.corrupted.{name} must have each of .severities, {list(self.severities)}')

    def rows(self) -> list[tuple[str, ...]]:
        """Returns the cells of a table in percent: one row for each corruption, and one for the mean."""
        rows = []
        for name, results in self.corrupted.items():
            mean = self.means[name]
            cells = (percent(one.miou) for one in results.values())
            rows.append((name, *cells, percent(mean.miou), percent(mean.retention)))
        by_severity = ([results[str(one)].miou for results in self.corrupted.values()] for one in self.severities)
        total = with_interval(self.mean.miou, self.mean.interval)
        retention = with_interval(self.mean.retention, self.mean.retention_interval)
        return [*rows, (ALL, *(percent(mean_of(values)) for values in by_severity), total, retention)]

    def table(self) -> Table:
        """Returns the mIoU by corruption and severity, in percent."""
        caption = f'mIoU under common corruptions, %; retention: mean / clean; lengths: {self.scale}'
        return Table(header(self.severities), tuple(self.rows()), text_columns=1, caption=caption)

    def long_table(self) -> Table:
        """Returns one row for each corruption and severity, with fractions."""
        rows = tuple(
            (name, severity, one.accuracy, one.miou, *(one.interval or (None, None)))
            for name, results in self.corrupted.items()
            for severity, one in results.items()
        )
        return Table(('corruption', 'severity', 'aAcc', 'mIoU', 'mIoU low', 'mIoU high'), rows, text_columns=1)

    def sentence(self) -> str:
        """Returns the means in words."""
        return (
            f'common corruptions: mIoU {with_interval(self.mean.miou, self.mean.interval)} % as the mean over '
            f'{len(self.corrupted)} corruptions and severities {", ".join(map(str, self.severities))}, which is '
            f'{with_interval(self.mean.retention, self.mean.retention_interval)} % of the clean mIoU'
        )


def header(severities: tuple[int, ...]) -> tuple[str, ...]:
    """Returns the titles of the columns of ``CorruptionsSummary.rows``."""
    return ('corruption', *(f'severity {one}' for one in severities), 'mean', 'retention')


def mean_of(values: list[float | None]) -> float | None:
    """Returns the mean; None if a value is undefined."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


@plain_text
def severity_svg(summaries: Mapping[str, CorruptionsSummary]) -> str:
    """Returns a plot of the mean mIoU over the severity, one line for each run, as an svg element."""
    figure = Figure(figsize=(5, 4), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for number, (name, summary) in enumerate(summaries.items()):
        points = []
        for severity in summary.severities:
            value = mean_of([results[str(severity)].miou for results in summary.corrupted.values()])
            points += [] if value is None else [(severity, 100 * value)]
        colour, marker, dash = STYLES[number % len(STYLES)]
        places, values = [place for place, _ in points], [value for _, value in points]
        axes.plot(places, values, color=colour, marker=marker, linestyle=dash, label=name)
    axes.set_title('Common corruptions')
    axes.set_xlabel('severity')
    axes.set_ylabel('mean mIoU over corruptions, %')
    axes.set_xticks(sorted({one for summary in summaries.values() for one in summary.severities}))
    axes.set_ylim(-2, 102)
    axes.grid(alpha=0.3)
    if len(summaries) > 1:
        axes.legend()
    return svg_text(figure, 'common corruptions')
