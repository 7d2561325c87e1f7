"""Comma-separated tables that a spreadsheet shows unchanged."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

# If a text begins with one of these, a spreadsheet runs it as a formula.
FORMULA_SIGNS = ('=', '+', '-', '@', '\t', '\r')


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Returns rows as CSV; None becomes an empty cell.

    A text that a spreadsheet would run as a formula gets an apostrophe in front. The spreadsheet then shows it as text.
    Numbers stay numbers.

    >>> print(csv_text([['=1+1', -0.5, None], ['-0.5', 'a,b', 'x']]), end='')
    '=1+1,-0.5,
    -0.5,"a,b",x
    """
    stream = io.StringIO()
    csv.writer(stream, lineterminator='\n').writerows([_cell(value) for value in row] for row in rows)
    return stream.getvalue()


def write_csv(path: str | Path, rows: Iterable[Sequence[Any]]) -> None:
    """Writes rows into a file; see ``csv_text``."""
    with open(path, 'w', newline='', encoding='utf-8') as stream:
        stream.write(csv_text(rows))


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return '' if value is None else value
    return f"'{value}" if value.startswith(FORMULA_SIGNS) and not _is_number(value) else value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
