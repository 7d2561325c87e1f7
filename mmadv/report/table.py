"""Tables and their formats: text, Markdown, CSV and LaTeX. The page writes tables as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmadv.fields import checked_exactly
from mmadv.printing import printable
from mmadv.report.csv_table import csv_text, write_csv
from mmadv.report.evaluation import Evaluation, Interval
from mmadv.report.metrics import METRICS

Cell = str | int | float | None
LATEX = {'\\': r'\textbackslash{}', **{sign: f'\\{sign}' for sign in '&%$#_{}'}, '~': r'\textasciitilde{}'}


@dataclass(frozen=True)
class Table:
    """A table; texts are aligned to the left, numbers to the right.

    Attributes:
        header: the titles of the columns.
        rows: the cells; None is an empty cell.
        text_columns: the number of columns, from the left, that hold text.
        numbers: the indices of the columns among them that hold numbers.
        caption: one line above the table.
        grouped: whether a rule separates rows whose first cells differ, in formats that have rules.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    text_columns: int
    numbers: tuple[int, ...] = ()
    caption: str = ''
    grouped: bool = False

    def __bool__(self) -> bool:
        return bool(self.rows)

    @property
    def columns(self) -> list[bool]:
        """Returns one value per column: whether the column holds numbers."""
        return [n >= self.text_columns or n in self.numbers for n in range(len(self.header))]

    @property
    def texts(self) -> list[list[str]]:
        """Returns the rows as texts."""
        return [['' if cell is None else str(cell) for cell in row] for row in self.rows]

    def text(self) -> str:
        """Returns the table as aligned text with an underlined header.

        >>> print(Table(('name', 'value'), (('a', '1.00'), ('bc', '10.00')), text_columns=1).text())
        name  value
        ----  -----
        a      1.00
        bc    10.00
        """
        lines = [[printable(cell) for cell in line] for line in (self.header, *self.texts)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.header))]

        def aligned(row: Sequence[str]) -> str:
            cells = [
                cell.rjust(width) if number else cell.ljust(width)
                for cell, width, number in zip(row, widths, self.columns, strict=True)
            ]
            return '  '.join(cells).rstrip()

        lines.insert(1, ['-' * width for width in widths])
        return '\n'.join([*([self.caption] if self.caption else []), *map(aligned, lines)])

    def markdown(self) -> str:
        r"""Returns the table in Markdown.

        >>> print(Table(('a|b', 'n'), (('x', 1),), text_columns=1).markdown())
        | a\|b | n |
        |---|---:|
        | x | 1 |
        <BLANKLINE>
        """
        marks = ['---:' if number else '---' for number in self.columns]
        lines = [[printable(cell).replace('|', r'\|') for cell in line] for line in (self.header, *self.texts)]
        first, *others = (f'| {" | ".join(line)} |' for line in lines)
        return '\n'.join([first, f'|{"|".join(marks)}|', *others]) + '\n'

    def csv(self) -> str:
        """Returns comma-separated values, with numbers in full precision."""
        return csv_text([self.header, *self.rows])

    def write_csv(self, path: Path) -> None:
        """Writes comma-separated values into a file."""
        write_csv(path, [self.header, *self.rows])

    def latex(self) -> str:
        """Returns the table as a LaTeX tabular with booktabs rules."""
        marks = ''.join('r' if number else 'l' for number in self.columns)
        lines = [r'\begin{tabular}{' + marks + '}', r'\toprule', _latex_line(self.header), r'\midrule']
        previous = None
        for row in self.texts:
            if self.grouped and previous not in (None, row[0]):
                lines.append(r'\midrule')
            previous = row[0]
            lines.append(_latex_line(row))
        return '\n'.join([*lines, r'\bottomrule', r'\end{tabular}']) + '\n'


def _latex_line(cells: Sequence[str]) -> str:
    escaped = (''.join(LATEX.get(sign, sign) for sign in cell) for cell in cells)
    return ' & '.join(escaped) + r' \\'


def percent(value: float | None) -> str:
    """Returns a fraction as a percentage with two decimals, '-' if it is undefined.

    >>> percent(0.12345), percent(None)
    ('12.35', '-')
    """
    return '-' if value is None else f'{100 * value:.2f}'


def with_interval(value: float | None, interval: Interval | None) -> str:
    """Returns a fraction as a percentage, with its interval in brackets.

    >>> with_interval(0.5, (0.25, 0.75)), with_interval(0.5, None)
    ('50.00 [25.00, 75.00]', '50.00')
    """
    return percent(value) if interval is None else f'{percent(value)} [{percent(interval[0])}, {percent(interval[1])}]'


def metrics_table(evaluation: Evaluation) -> Table:
    """Returns all metrics in percent, one row for each radius and attack."""
    lines = list(evaluation.rows())
    shown = [one for one in METRICS.values() if one.listed and any(one.name in values for _, _, values in lines)]
    rows = tuple(
        (radius, name, *(percent(values[one.name]) if one.name in values else None for one in shown))
        for radius, name, values in lines
    )
    return Table(('radius', 'attack', *(one.label for one in shown)), rows, text_columns=2)


def classes_table(evaluation: Evaluation, *, fractions: bool = False) -> Table:
    """Returns the IoU and accuracy of every class, for clean images and for the worst case at every radius.

    Args:
        evaluation: the evaluation that has the classes.
        fractions: give fractions as numbers; by default the cells are texts in percent.
    """
    columns = evaluation.worst_cases
    header = ('class', *(f'{metric} {column}' for column in columns for metric in ('IoU', 'Acc')))
    cells = [
        [cell for values in columns.values() for cell in (values.iou[k], values.accuracy[k])]
        for k in range(len(evaluation.classes))
    ]
    rows = tuple(
        (name, *(line if fractions else map(percent, line)))
        for name, line in zip(evaluation.classes, cells, strict=True)
    )
    return Table(header, rows, text_columns=1)


@checked_exactly
def summary_table(evaluation: Evaluation) -> str:
    """Returns the table of all metrics, in percent, as text."""
    return metrics_table(evaluation).text()


@checked_exactly
def class_table(evaluation: Evaluation) -> str:
    """Returns the table of the IoU and accuracy of every class, in percent, as text."""
    return classes_table(evaluation).text()
