"""A sheet of pictures: one row per image, one column per model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmadv.report.drawing import plain_text


@plain_text
def draw_sheet(
    columns: Mapping[str, Sequence[np.ndarray]],
    rows: Sequence[str],
    path: str | Path,
    *,
    notes: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Writes the sheet.

    Args:
        columns: title -> (h, w, 3) RGB in [0, 1], one picture per row.
        rows: the name of each row.
        path: the path of the file.
        notes: title -> one line for each of the column's pictures, shown below the picture.
    """
    tallest = max(picture.shape[0] / picture.shape[1] for pictures in columns.values() for picture in pictures)
    height = 2.4 * tallest + (0.4 if notes else 0.2)
    figure = Figure(figsize=(2.4 * len(columns) + 0.6, height * len(rows) + 0.4), layout='constrained')
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    for c, (title, pictures) in enumerate(columns.items()):
        for r, picture in enumerate(pictures):
            axes = grid[r, c]
            axes.imshow(np.clip(picture, 0, 1), interpolation='nearest')
            axes.set(xticks=[], yticks=[])
            if r == 0:
                axes.set_title(title, fontsize=10)
            if c == 0:
                axes.set_ylabel(rows[r], fontsize=9)
            if notes and title in notes:
                axes.set_xlabel(notes[title][r], fontsize=9)
    figure.savefig(path, dpi=100)
