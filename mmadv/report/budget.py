"""How an attack's strength depends on its budget and scheme, in the form of figures 2 and 5 of SEA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmadv.report.curve import STYLES
from mmadv.report.drawing import plain_text
from mmadv.report.metrics import CURVES

HATCHES = ('', '//', '..', 'xx', '\\\\', '++')


@plain_text
def draw_budget(rows: Sequence[Mapping[str, Any]], path: str | Path, worst: str = 'worst case') -> None:
    """Writes a figure of the worst case over the iterations, and of every attack at the largest common budget.

    The worst case is in the upper plots. The single attacks are in the lower plots.

    Args:
        rows: the results at one radius. Each row has ``scheme``, ``iterations``, ``attack`` and the metrics as
            fractions. Rows without iterations are left out.
        path: the path of the file; its suffix decides the format.
        worst: the name of the worst case over the attacks.
    """
    rows = [row for row in rows if row['iterations']]
    schemes = list(dict.fromkeys(row['scheme'] for row in rows))
    figure = Figure(figsize=(10, 7.4), layout='constrained')
    FigureCanvasAgg(figure)
    for (above, below), metric in zip(figure.subplots(2, len(CURVES)).T, CURVES, strict=True):
        label = f'{metric.label}, %'
        lines = [[row for row in rows if row['scheme'] == scheme] for scheme in schemes]
        for number, (scheme, mine) in enumerate(zip(schemes, lines, strict=True)):
            points = sorted((row['iterations'], 100 * row[metric.name]) for row in mine if row['attack'] == worst)
            colour, marker, dash = STYLES[number % len(STYLES)]
            above.plot(*zip(*points, strict=True), color=colour, marker=marker, linestyle=dash, label=scheme)
        above.set(xlabel='iterations of each loss', ylabel=label, title=f'{worst} over the losses')
        above.set_xticks(sorted({row['iterations'] for row in rows}))
        _draw_bars(below, dict(zip(schemes, lines, strict=True)), metric.name)
        below.set_ylabel(label)
        for axes in (above, below):
            axes.grid(alpha=0.3, axis='y')
            axes.legend()
    figure.savefig(path, dpi=120)


def largest_common_budget(lines: Mapping[str, Sequence[Mapping[str, Any]]]) -> int | None:
    """Returns the largest number of iterations that every scheme has a run of; None if they have none in common.

    >>> largest_common_budget({'a': [{'iterations': 50}, {'iterations': 100}], 'b': [{'iterations': 50}]})
    50
    """
    return max(set.intersection(*({row['iterations'] for row in rows} for rows in lines.values())), default=None)


def _draw_bars(axes: Any, lines: Mapping[str, Sequence[Mapping[str, Any]]], metric: str) -> None:
    budget = largest_common_budget(lines)
    attacks = list(dict.fromkeys(row['attack'] for rows in lines.values() for row in rows))
    width = 0.8 / len(lines)
    for number, (scheme, rows) in enumerate(lines.items()):
        values = {row['attack']: 100 * row[metric] for row in rows if row['iterations'] == budget}
        places = [n for n, attack in enumerate(attacks) if attack in values]
        axes.bar(
            np.array(places) + (number - (len(lines) - 1) / 2) * width,
            [values[attacks[n]] for n in places],
            width,
            color=STYLES[number % len(STYLES)][0],
            hatch=HATCHES[number % len(HATCHES)],
            edgecolor='white',
            label=scheme,
        )
    heights = [patch.get_height() for patch in axes.patches]
    if heights:
        # The differences are small compared with the values. The paper's axes do not begin at zero either.
        axes.set_ylim(max(0, min(heights) - 4), max(heights) + 4)
    axes.set_xticks(range(len(attacks)), attacks, rotation=15)
    axes.set_title('no common number of iterations' if budget is None else f'{budget} iterations')
