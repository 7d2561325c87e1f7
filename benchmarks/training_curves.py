"""Tables and figure of studies that fine-tune one model by many methods: curves over the radius, cost and length."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from experiments import cell, mean_and_deviation
from matplotlib import colormaps
from matplotlib.figure import Figure

MARKERS = 'xDsov^PX*.hp<>d8'
COLOURS = colormaps['tab20'].colors


@dataclass(frozen=True)
class Method:
    """What was measured of one method.

    Attributes:
        name: in the tables.
        seeds: number of trainings behind the curves.
        curves: mIoU in [0, 1] of each training by attack and radius; '0', which is clean, comes first.
        seconds: processor time of a step; None without a training.
        lengths: mean Linf length of the training attack in each tenth of the training; empty without an attack.
        steps: number of steps of a training.
    """

    name: str
    seeds: int
    curves: Mapping[str, Mapping[str, Sequence[float]]]
    seconds: float | None
    lengths: Sequence[float]
    steps: int


def mean_lengths(trainings: Sequence[Sequence[float | None]]) -> list[float]:
    """Returns the mean over trainings of the lengths in each tenth; empty if there is no attack.

    >>> mean_lengths([[0.5, 1.5], [1.5, 2.5]]), mean_lengths([[None, None]])
    ([1.0, 2.0], [])
    """
    return [statistics.fmean(part) for part in zip(*(one for one in trainings if None not in one), strict=True)]


def curves_table(methods: Sequence[Method]) -> str:
    """Returns the Markdown table of all curves."""
    attacks = methods[0].curves
    columns = [(attack, radius) for attack, points in attacks.items() for radius in points if radius != '0']
    heads = ' | '.join(f'{attack} {radius}' for attack, radius in columns)
    lines = [f'| training | seeds | clean | {heads} |', '|---|' + '---:|' * (2 + len(columns))]
    for method in methods:
        clean = next(iter(method.curves.values()))['0']
        cells = [cell(clean), *(cell(method.curves[attack][radius]) for attack, radius in columns)]
        lines.append(f'| {method.name} | {method.seeds} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def cost_table(methods: Sequence[Method], standard: float) -> str:
    """Returns the Markdown table of costs and lengths, with what its columns are.

    Args:
        methods: rows; those without a training are left out.
        standard: processor seconds of a step of standard training.
    """
    lines = [
        '| training | seconds a step | over standard | length, first tenth | length, last tenth | length, mean |',
        '|---|---:|---:|---:|---:|---:|',
    ]
    for method in methods:
        if method.seconds is None:
            continue
        shown = method.lengths and (method.lengths[0], method.lengths[-1], statistics.fmean(method.lengths))
        cells = [f'{number:.4f}' for number in shown] if shown else '---'
        ratio = method.seconds / standard
        lines.append(f'| {method.name} | {method.seconds:.2f} | {ratio:.2f} | {" | ".join(cells)} |')
    return '\n'.join(lines) + (
        '\n\nSeconds of a step are the median of its processor time, without the loading of data. Other programs ran '
        'beside some of the trainings, which a time feels. Length: the Linf distance in [0, 1] by which the attack '
        'moved a training image, mean over the images that it moved; "-" stands for no attack or no record.'
    )


def draw(methods: Sequence[Method], path: Path) -> None:
    """Writes the figure: mIoU under each attack over the radius, and the length of the steps over the training."""
    curves = methods[0].curves
    figure = Figure(figsize=(4.7 * (1 + len(curves)), 4.2), layout='constrained')
    *grid, steps = figure.subplots(1, 1 + len(curves))
    for n, method in enumerate(methods):
        style = {'color': COLOURS[n], 'marker': MARKERS[n], 'label': method.name}
        for axes, (attack, points) in zip(grid, method.curves.items(), strict=True):
            pairs = [mean_and_deviation(values) for values in points.values()]
            means, deviations = ([100 * pair[part] for pair in pairs] for part in (0, 1))
            axes.errorbar([float(Fraction(radius)) for radius in points], means, deviations, capsize=3, **style)
            axes.set(title=attack, xlabel='Linf radius', ylabel='mIoU, %', ylim=(0, None))
        if method.lengths:
            length = method.steps / len(method.lengths)
            steps.plot([(n + 0.5) * length for n in range(len(method.lengths))], method.lengths, **style)
    # Noise moves pixels thirty times as far as a step, so the axis is logarithmic.
    steps.set(title='mean length of the training attack', xlabel='iteration', ylabel='Linf distance', yscale='log')
    for axes in (*grid, steps):
        axes.grid(alpha=0.3)
    figure.legend(*grid[0].get_legend_handles_labels(), loc='outside right upper', fontsize='small')
    figure.savefig(path, dpi=90)
