"""Tables that take the numbers apart: by class and by the size of the labelled objects."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from mmadv.report.csv_table import write_csv
from mmadv.report.table import format_table, percent

SIZE_COLUMNS = {'aAcc': 'pixels', 'object_mean': 'objects'}


def size_names(edges: list[float]) -> list[str]:
    """Returns the names of the object sizes, as shares of the image.

    >>> size_names([0.001, 0.01])
    ['below 0.1 %', '0.1 to 1 %', '1 % and more']
    """
    texts = [f'{100 * edge:g}' for edge in edges]
    between = [f'{low} to {high} %' for low, high in pairwise(texts)]
    return [f'below {texts[0]} %', *between, f'{texts[-1]} % and more']


def object_size_rows(evaluation: Mapping[str, Any]) -> list[list[str]]:
    """Returns the table of accuracy by object size in percent, header first; empty where it is not known.

    Two columns for each radius: the share of the pixels of such objects that is correct, and the mean over the objects
    of their own share.
    """
    sizes = evaluation.get('object_sizes')
    if not sizes:
        return []
    columns = {'clean': sizes['clean'], **sizes['attacked']}
    header = ['object size', 'number', *(f'{text} {radius}' for radius in columns for text in SIZE_COLUMNS.values())]
    table = [header]
    for n, name in enumerate(size_names(sizes['edges'])):
        cells = [percent(values[key][n]) for values in columns.values() for key in SIZE_COLUMNS]
        table.append([name, str(sizes['objects'][n]), *cells])
    return table


def object_size_text(evaluation: Mapping[str, Any]) -> str:
    """Returns that table as text, empty where it is not known."""
    table = object_size_rows(evaluation)
    if not table:
        return ''
    caption = 'accuracy by size of the labelled region, as a share of the image; %'
    return f'{caption}\n{format_table(table, text_columns=1)}'


def write_breakdowns(folder: Path, evaluation: Mapping[str, Any]) -> None:
    """Writes ``per_class.csv`` and, where it is known, ``object_sizes.csv``: fractions, empty where undefined."""
    columns = {'clean': evaluation['clean']}
    columns.update({radius: attacked['worst_case'] for radius, attacked in evaluation['attacked'].items()})
    header = ['class', *(f'{metric} {radius}' for radius in columns for metric in ('IoU', 'Acc'))]
    rows = [
        [name, *(values[metric][k] for values in columns.values() for metric in ('IoU', 'Acc'))]
        for k, name in enumerate(evaluation['classes'])
    ]
    write_csv(folder / 'per_class.csv', [header, *rows])
    sizes = evaluation.get('object_sizes')
    if sizes:
        parts = {'clean': sizes['clean'], **sizes['attacked']}
        header = ['object size', 'objects', 'pixels', *(f'{key} {radius}' for radius in parts for key in SIZE_COLUMNS)]
        rows = [
            [name, sizes['objects'][n], sizes['pixels'][n], *(part[key][n] for part in parts.values() for key in part)]
            for n, name in enumerate(size_names(sizes['edges']))
        ]
        write_csv(folder / 'object_sizes.csv', [header, *rows])
