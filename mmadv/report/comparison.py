"""Several runs in one table: Markdown, CSV and LaTeX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmadv.report.csv_table import csv_text
from mmadv.report.table import COLUMNS, markdown_row, percent

HEADLINE = ('aAcc', 'aAcc_image_mean', 'mIoU')
LATEX = {'\\': r'\textbackslash{}', **{sign: f'\\{sign}' for sign in '&%$#_{}'}, '~': r'\textasciitilde{}'}


def comparison_rows(runs: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns one row for each run and radius, clean first: run, attack, radius, images, metrics and intervals.

    Args:
        runs: name -> content of results.json. Metrics are fractions, None where undefined; an interval is
            [low, high], or None where the run has none.
    """
    rows = []
    for name, results in runs.items():
        evaluation = results['evaluation']
        intervals = evaluation.get('intervals') or {}
        lines = [('clean', '0', evaluation['clean'])]
        lines += [
            (evaluation['title'], radius, values['worst_case']) for radius, values in evaluation['attacked'].items()
        ]
        for attack, radius, values in lines:
            known = intervals.get('clean' if attack == 'clean' else radius) or {}
            rows.append(
                {
                    'run': name,
                    'attack': attack,
                    'radius': radius,
                    'images': evaluation['images'],
                    **{metric: values[metric] for metric in HEADLINE},
                    **{f'{metric} interval': known.get(metric) for metric in HEADLINE},
                }
            )
    return rows


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the rows as a Markdown table, in percent, intervals in brackets."""
    lines = ['| run | attack | radius | images | ' + ' | '.join(f'{COLUMNS[metric]}, %' for metric in HEADLINE) + ' |']
    lines.append('|---|---|---|---:|' + '---:|' * len(HEADLINE))
    for row in rows:
        cells = [row['run'], row['attack'], row['radius'], str(row['images']), *(_cell(row, m) for m in HEADLINE)]
        lines.append(markdown_row(cells))
    return '\n'.join(lines) + '\n'


def comma_separated(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the rows as CSV: fractions in full precision, intervals in columns of their own."""
    header = ['run', 'attack', 'radius', 'images']
    header += [f'{metric}{suffix}' for metric in HEADLINE for suffix in ('', ' low', ' high')]
    table: list[list[Any]] = [header]
    for row in rows:
        values = [row[name] for name in ('run', 'attack', 'radius', 'images')]
        for metric in HEADLINE:
            values += [row[metric], *(row[f'{metric} interval'] or (None, None))]
        table.append(values)
    return csv_text(table)


def latex(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the rows as a tabular of LaTeX with the rules of booktabs, in percent."""
    columns = ' & '.join(_escaped(f'{COLUMNS[metric]}, %') for metric in HEADLINE)
    lines = [r'\begin{tabular}{lllr' + 'r' * len(HEADLINE) + '}', r'\toprule']
    lines += [f'run & attack & radius & images & {columns} ' + r'\\', r'\midrule']
    previous = None
    for row in rows:
        if previous not in (None, row['run']):
            lines.append(r'\midrule')
        previous = row['run']
        cells = [row['run'], row['attack'], row['radius'], str(row['images']), *(_cell(row, m) for m in HEADLINE)]
        lines.append(' & '.join(map(_escaped, cells)) + r' \\')
    return '\n'.join([*lines, r'\bottomrule', r'\end{tabular}']) + '\n'


def _cell(row: Mapping[str, Any], metric: str) -> str:
    interval = row[f'{metric} interval']
    text = percent(row[metric])
    return text if interval is None else f'{text} [{percent(interval[0])}, {percent(interval[1])}]'


def _escaped(text: str) -> str:
    return ''.join(LATEX.get(sign, sign) for sign in text)
