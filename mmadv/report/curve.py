"""The robustness curve: a metric over the radius, one line per run."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

METRICS = {'aAcc_image_mean': 'ACC (image mean), %', 'mIoU': 'mIoU, %'}
# Okabe and Ito's colours, told apart also by marker and dash.
STYLES = [
    ('#0072B2', 'o', '-'),
    ('#D55E00', 's', '--'),
    ('#009E73', '^', '-.'),
    ('#CC79A7', 'D', ':'),
    ('#E69F00', 'v', (0, (5, 1))),
    ('#56B4E9', 'P', (0, (3, 1, 1, 1))),
]


def curve_points(results: Mapping[str, Any], metric: str) -> list[tuple[float, str, float]]:
    """Returns (radius, its text, metric in percent) from clean on, in order of the radius."""
    evaluation = results['evaluation']
    values = {radius['text']: radius['value'] for radius in results['radii']}
    points = [(0.0, '0', 100 * evaluation['clean'][metric])]
    points += [
        (values[text], text, 100 * attacked['worst_case'][metric])
        for text, attacked in evaluation['attacked'].items()
        if values[text] > 0
    ]
    return sorted(points)


def robustness_figure(runs: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Returns the figure of ACC and mIoU over the radius.

    Args:
        runs: name -> content of results.json.
    """
    figure = Figure(figsize=(10, 4), layout='constrained')
    FigureCanvasAgg(figure)
    for axes, (metric, label) in zip(figure.subplots(1, len(METRICS)), METRICS.items(), strict=True):
        ticks: dict[float, str] = {}
        for number, (name, results) in enumerate(runs.items()):
            points = curve_points(results, metric)
            ticks.update({radius: text for radius, text, _ in points})
            colour, marker, dash = STYLES[number % len(STYLES)]
            axes.plot(
                [radius for radius, _, _ in points],
                [value for _, _, value in points],
                color=colour,
                marker=marker,
                linestyle=dash,
                label=name,
            )
        axes.set_xticks(list(ticks), list(ticks.values()))
        axes.set_xlabel('radius')
        axes.set_ylabel(label)
        axes.set_ylim(-2, 102)
        axes.grid(alpha=0.3)
        axes.legend()
    titles = sorted({results['evaluation']['title'] for results in runs.values() if results['radii']})
    figure.suptitle(' / '.join(titles) or 'clean')
    return figure


def draw_curve(runs: Mapping[str, Mapping[str, Any]], path: str | Path) -> None:
    """Writes the robustness curve of several runs; the suffix of ``path`` decides the format."""
    robustness_figure(runs).savefig(path, dpi=150)


def curve_svg(runs: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the robustness curve as an svg element, the same text for the same runs."""
    buffer = BytesIO()
    with matplotlib.rc_context({'svg.hashsalt': 'mmadv', 'svg.fonttype': 'none'}):
        robustness_figure(runs).savefig(buffer, format='svg', metadata={'Date': None})
    text = buffer.getvalue().decode()
    return text[text.index('<svg') :]
