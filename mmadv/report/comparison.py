"""Several runs in one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mmadv.report.evaluation import CLEAN, MetricValues
from mmadv.report.measurement import Measurement
from mmadv.report.metrics import HEADLINE
from mmadv.report.run import RunResults
from mmadv.report.table import Cell, Table, with_interval


def comparison_table(runs: Mapping[str, RunResults]) -> Table:
    """Returns one row for each run and radius, clean first: the headline metrics in percent, intervals in brackets.

    Args:
        runs: name -> results.
    """
    header = ('run', 'attack', 'radius', 'images', *(f'{metric.label}, %' for metric in HEADLINE))
    rows = []
    for names, run, column, values in _lines(runs):
        cells = (with_interval(values[one.name], run.evaluation.interval(column, one.name)) for one in HEADLINE)
        rows.append((*names, str(run.evaluation.images), *cells))
    return Table(header, tuple(rows), text_columns=3, grouped=True)


def comparison_data(runs: Mapping[str, RunResults]) -> Table:
    """Returns ``comparison_table`` as fractions in full precision; the ends of intervals have their own columns."""
    header = ['run', 'attack', 'radius', 'images']
    header += [f'{metric.name}{suffix}' for metric in HEADLINE for suffix in ('', ' low', ' high')]
    rows = []
    for names, run, column, values in _lines(runs):
        cells: list[Cell] = [*names, run.evaluation.images]
        for metric in HEADLINE:
            cells += [values[metric.name], *(run.evaluation.interval(column, metric.name) or (None, None))]
        rows.append(tuple(cells))
    return Table(tuple(header), tuple(rows), text_columns=3)


def measured(runs: Mapping[str, RunResults]) -> dict[type[Measurement], dict[str, Any]]:
    """Returns measurement -> name of the run -> summary, for each measurement that at least one run has."""
    found: dict[type[Measurement], dict[str, Any]] = {}
    for name, run in runs.items():
        for measurement, summary in run.summaries():
            found.setdefault(measurement, {})[name] = summary
    return found


def section_tables(runs: Mapping[str, RunResults]) -> dict[str, Table]:
    """Returns name of the measurement -> its table of all runs, for each measurement that has a table."""
    sections = {kind.name: kind.section(summaries) for kind, summaries in measured(runs).items()}
    return {name: section.table for name, section in sections.items() if section is not None}


# Suffix of the file -> function that returns the file's text. A new format is one entry.
FORMATS: dict[str, Callable[[Mapping[str, RunResults]], str]] = {
    'md': lambda runs: comparison_table(runs).markdown(),
    'csv': lambda runs: comparison_data(runs).csv(),
    'tex': lambda runs: comparison_table(runs).latex(),
}


def _lines(runs: Mapping[str, RunResults]) -> Iterator[tuple[tuple[str, str, str], RunResults, str, MetricValues]]:
    """Yields (run, attack, radius), the run, the column of its intervals, and its metrics."""
    for name, run in runs.items():
        for column, values in run.evaluation.worst_cases.items():
            clean = column == CLEAN
            yield (name, CLEAN if clean else run.evaluation.title, '0' if clean else column), run, column, values
