"""Runs that differ in the seed alone: mean and deviation of every number, as in table 10 of SEA's paper."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Protocol

from mmadv.report.metrics import METRICS, Metric
from mmadv.report.run import NOT_DECISIVE, RunResults
from mmadv.report.table import Cell, Table, percent

CAPTION = 'Mean ± sample standard deviation over {} seeds, %'


class Values(Protocol):
    """The metrics of one set of predictions: name -> value as a fraction."""

    def __contains__(self, metric: object) -> bool: ...

    def __getitem__(self, metric: str, /) -> float | None: ...


# Radius, attack, metrics.
Line = tuple[str, str, Values]

# These must be equal in runs that differ in the seed alone.
SAME: dict[str, Callable[[RunResults], object]] = {
    'the config': lambda run: run.config.text,
    'the checkpoint': lambda run: run.checkpoint.sha256,
    'the attack': lambda run: json.dumps(run.attack and run.attack.parameters, sort_keys=True),
    'the radii': lambda run: [radius.text for radius in run.radii],
    'the target': lambda run: run.target,
    'the region': lambda run: (run.region, run.score),
    'the source model': lambda run: run.source and run.source.sha256,
    'the precision': lambda run: run.precision,
    'the attacked space': lambda run: run.space,
    'the sweep': lambda run: run.sweep,
    'the dataset': lambda run: (run.dataset.type, run.dataset.size),
    'the images': lambda run: (run.dataset.limit, run.evaluation.images, run.evaluation.failed),
    'the versions': lambda run: {name: text for name, text in run.versions.items() if name not in NOT_DECISIVE},
}


def obstacle(runs: Mapping[str, RunResults]) -> str | None:
    """Returns a sentence that says why runs have no statistics over seeds; None if they differ in the seed alone.

    Args:
        runs: name -> results, of at least one run.
    """
    (first, reference), *others = runs.items()
    if not others:
        return f'statistics over seeds need at least two runs; found {first} alone'
    if reference.attack is None:
        return f'statistics over seeds need an attack; {first} has none'
    for name, run in others:
        different = [what for what, read in SAME.items() if read(run) != read(reference)]
        if different:
            return (
                f'statistics over seeds need runs that differ in the seed alone; {name} differs from {first} in '
                f'{", ".join(different)}'
            )
    for (name, run), (other, second) in itertools.combinations(runs.items(), 2):
        if run.seed == second.seed:
            return f'statistics over seeds need another seed for each run; {name} and {other} both have {run.seed}'
    return None


def run_lines(runs: Mapping[str, RunResults]) -> dict[str, list[Line]]:
    """Returns the lines of each run: clean first, then each attack and the worst case by radius."""
    return {name: list(run.evaluation.rows()) for name, run in runs.items()}


def seeds_of(runs: Mapping[str, RunResults]) -> Table | None:
    """Returns the table of runs that differ in the seed alone; None for other runs."""
    return None if obstacle(runs) else seeds_table(list(run_lines(runs).values()))


def seeds_table(lines: Sequence[Sequence[Line]]) -> Table:
    """Returns mean ± deviation in percent, one row for each radius and attack.

    Args:
        lines: the lines of each run, in the same order in all runs.
    """
    metrics = _metrics(lines[0])
    rows = tuple(
        (radius, attack, *(_text(values) for values in columns)) for radius, attack, columns in _rows(lines, metrics)
    )
    header = ('radius', 'attack', *(metric.label for metric in metrics))
    return Table(header, rows, text_columns=2, caption=CAPTION.format(len(lines)), grouped=True)


def seeds_data(lines: Sequence[Sequence[Line]]) -> Table:
    """Returns ``seeds_table`` as fractions in full precision; mean and deviation have their own columns."""
    metrics = _metrics(lines[0])
    rows = []
    for radius, attack, columns in _rows(lines, metrics):
        cells: list[Cell] = [radius, attack, len(lines)]
        for values in columns:
            cells += _mean_and_deviation(values) or (None, None)
        rows.append(tuple(cells))
    names = (f'{metric.name} {what}' for metric in metrics for what in ('mean', 'deviation'))
    return Table(('radius', 'attack', 'seeds', *names), tuple(rows), text_columns=2)


def _metrics(lines: Iterable[Line]) -> list[Metric]:
    given = [values for _, _, values in lines]
    return [one for one in METRICS.values() if one.listed and any(one.name in values for values in given)]


def _rows(
    lines: Sequence[Sequence[Line]], metrics: Sequence[Metric]
) -> Iterable[tuple[str, str, list[list[float | None] | None]]]:
    """Yields radius, attack and, for each metric, its value in every run; None if the line has no such metric."""
    for same in zip(*lines, strict=True):
        radius, attack, first = same[0]
        columns = ([values[one.name] for _, _, values in same] if one.name in first else None for one in metrics)
        yield radius, attack, list(columns)


def _mean_and_deviation(values: Sequence[float | None] | None) -> tuple[float, float] | None:
    """Returns mean and sample standard deviation; None if the metric is undefined in one of the runs."""
    known = [value for value in values or () if value is not None]
    if values is None or len(known) < len(values):
        return None
    return fmean(known), stdev(known)


def _text(values: Sequence[float | None] | None) -> str | None:
    if values is None:
        return None
    numbers = _mean_and_deviation(values)
    return '-' if numbers is None else f'{percent(numbers[0])} ± {percent(numbers[1])}'
