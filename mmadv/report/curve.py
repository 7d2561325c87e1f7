"""The robustness curve: a metric over the radius, one line per run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmadv.errors import UserError
from mmadv.fields import checked_exactly
from mmadv.report.drawing import check_picture_path, plain_text
from mmadv.report.evaluation import CLEAN
from mmadv.report.metrics import CURVES, Metric
from mmadv.report.run import RunResults

# Okabe and Ito's colours. Each line also has its own marker and dash.
STYLES = [
    ('#0072B2', 'o', '-'),
    ('#D55E00', 's', '--'),
    ('#009E73', '^', '-.'),
    ('#CC79A7', 'D', ':'),
    ('#E69F00', 'v', (0, (5, 1))),
    ('#56B4E9', 'P', (0, (3, 1, 1, 1))),
]


def curve_points(run: RunResults, metric: str) -> list[tuple[float, str, float]]:
    """Returns (radius, its text, metric in percent) in order of the radius; the clean value comes first."""
    values = {radius.text: radius.value for radius in run.radii}
    points = [(0.0, '0', run.evaluation.clean[metric])]
    points += [
        (values[text], text, result.worst_case[metric])
        for text, result in run.evaluation.attacked.items()
        if values[text] > 0
    ]
    return sorted((radius, text, 100 * value) for radius, text, value in points if value is not None)


def robustness_figure(runs: Mapping[str, RunResults], metrics: Sequence[Metric] = CURVES) -> Figure:
    """Returns the figure of ACC and mIoU over the radius, with 95 % intervals if the runs have them.

    Args:
        runs: name -> results.
        metrics: the metrics; each has one plot.
    """
    figure = Figure(figsize=(5 * len(metrics), 4), layout='constrained')
    FigureCanvasAgg(figure)
    for axes, metric in zip(figure.subplots(1, len(metrics), squeeze=False).flat, metrics, strict=True):
        ticks: dict[float, str] = {}
        for number, (name, run) in enumerate(runs.items()):
            points = curve_points(run, metric.name)
            ticks.update({radius: text for radius, text, _ in points})
            colour, marker, dash = STYLES[number % len(STYLES)]
            axes.errorbar(
                [radius for radius, _, _ in points],
                [value for _, _, value in points],
                yerr=_error_bars(run, metric.name, points),
                color=colour,
                marker=marker,
                linestyle=dash,
                capsize=3,
                elinewidth=1,
                label=name,
            )
        axes.set_xticks(list(ticks), list(ticks.values()))
        axes.set_xlabel('radius')
        axes.set_ylabel(f'{metric.label}, %')
        axes.set_ylim(-2, 102)
        axes.grid(alpha=0.3)
        if len(runs) > 1:
            axes.legend()
    titles = sorted({run.evaluation.title for run in runs.values() if run.radii})
    figure.suptitle(' / '.join(titles) or 'clean')
    return figure


def _error_bars(run: RunResults, metric: str, points: Sequence[tuple[float, str, float]]) -> list[list[float]] | None:
    """Returns how far each interval reaches below and above its point, in percent; None if there are no intervals."""
    intervals = [run.evaluation.interval(CLEAN if text == '0' else text, metric) for _, text, _ in points]
    if not any(intervals):
        return None
    # A percentile interval does not always contain the number itself.
    pairs = zip(intervals, (value for _, _, value in points), strict=True)
    reach = [(max(v - 100 * i[0], 0), max(100 * i[1] - v, 0)) if i else (0, 0) for i, v in pairs]
    return [list(side) for side in zip(*reach, strict=True)]


@checked_exactly
@plain_text
def draw_curve(runs: Mapping[str, RunResults], path: str | Path) -> None:
    """Writes the robustness curve of several runs; the suffix of ``path`` decides the format.

    Raises:
        UserError: there is no run, or the suffix names no format.
    """
    check_picture_path(path)
    if not runs:
        raise UserError('runs is empty; a curve needs at least one run')
    robustness_figure(runs).savefig(path, dpi=150)


@plain_text
def curve_svgs(runs: Mapping[str, RunResults]) -> list[str]:
    """Returns the robustness curves as svg elements, one for each metric; equal runs give equal text."""
    return [svg_text(robustness_figure(runs, [metric]), metric.name) for metric in CURVES]


def svg_text(figure: Figure, salt: str) -> str:
    """Returns a figure as an svg element.

    Args:
        figure: the figure to write.
        salt: the salt of the names inside the element; it must differ between the figures of a page.
    """
    buffer = BytesIO()
    with matplotlib.rc_context({'svg.hashsalt': f'mmadv {salt}', 'svg.fonttype': 'none'}):
        figure.savefig(buffer, format='svg', metadata={'Date': None})
    text = buffer.getvalue().decode()
    return text[text.index('<svg') :]
