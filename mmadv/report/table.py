"""Text tables of an evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mmadv.printing import printable

COLUMNS = {
    'aAcc': 'aAcc',
    'aAcc_image_mean': 'ACC (image mean)',
    'mAcc': 'mAcc',
    'mIoU': 'mIoU',
    'mIoU_greedy': 'mIoU (greedy)',
    'mIoU_minimised': 'mIoU (lowest)',
    'mIoU_lower_bound': 'mIoU (bound)',
    'target_rate': 'target reached',
}


def percent(value: float | None) -> str:
    """Returns a fraction as a percentage with two decimals, '-' where it is undefined.

    >>> percent(0.12345), percent(None)
    ('12.35', '-')
    """
    return '-' if value is None else f'{100 * value:.2f}'


def rows(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yields (radius, what was measured, metrics) of an evaluation, clean first, then by radius."""
    yield '0', 'clean', evaluation['clean']
    for radius, attacked in evaluation['attacked'].items():
        for name, values in attacked['members'].items():
            yield radius, name, values
        yield radius, evaluation['title'], attacked['worst_case']


def summary_table(evaluation: Mapping[str, Any]) -> str:
    """Returns the table of all metrics in percent, one row for each radius and attack.

    Args:
        evaluation: the ``evaluation`` of a result, as docs/results.md describes it.
    """
    lines = list(rows(evaluation))
    shown = [name for name in COLUMNS if any(name in values for _, _, values in lines)]
    table = [['radius', 'attack', *(COLUMNS[name] for name in shown)]]
    for radius, name, values in lines:
        table.append([radius, name, *(percent(values[key]) if key in values else '' for key in shown)])
    return format_table(table, text_columns=2)


def class_table(evaluation: Mapping[str, Any]) -> str:
    """Returns the table of IoU and accuracy of every class in percent, clean and attacked at every radius."""
    columns = {'clean': evaluation['clean']}
    columns.update({radius: attacked['worst_case'] for radius, attacked in evaluation['attacked'].items()})
    table = [['class', *(f'{metric} {column}' for column in columns for metric in ('IoU', 'Acc'))]]
    for k, name in enumerate(evaluation['classes']):
        table.append([name, *(percent(values[metric][k]) for values in columns.values() for metric in ('IoU', 'Acc'))])
    return format_table(table, text_columns=1)


def markdown_row(cells: Iterable[str]) -> str:
    r"""Returns the cells as a row of a Markdown table, each on one line.

    >>> markdown_row(['a|b', '1.00'])
    '| a\\|b | 1.00 |'
    """
    return '| ' + ' | '.join(printable(cell).replace('|', '\\|') for cell in cells) + ' |'


def format_table(table: Sequence[Sequence[str]], text_columns: int) -> str:
    """Returns rows as aligned text, the first row underlined.

    >>> print(format_table([['name', 'value'], ['a', '1.00'], ['bc', '10.00']], text_columns=1))
    name  value
    ----  -----
    a      1.00
    bc    10.00
    """
    table = [[printable(cell) for cell in row] for row in table]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.ljust(width) if column < text_columns else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return '  '.join(cells).rstrip()

    return '\n'.join([line(table[0]), line(['-' * width for width in widths]), *(line(row) for row in table[1:])])
