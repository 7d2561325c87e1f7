"""Draws the sheets of benchmarks/painting.py, and makes its section of docs/gallery.md."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from experiments import ROOT, cell, provenance, write_section
from torch import Tensor

from mmadv.report.sheet import draw_sheet
from mmadv.robustness.bootstrap import LEVEL, SAMPLES, intervals


def draw(
    columns: Mapping[str, Sequence[Tensor]],
    rows: Sequence[str],
    name: str,
    quality: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
) -> None:
    """Writes a sheet to docs/images.

    Args:
        columns: title -> pictures (3, h, w) in [0, 1], BGR, one for each row.
        rows: names of the rows.
        name: of the sheet.
        quality: title -> 'PSNR' and 'SSIM' -> values, which are written below the pictures.
    """
    pictures = {
        title: [image.permute(1, 2, 0).numpy()[:, :, ::-1] for image in images] for title, images in columns.items()
    }
    notes = {
        title: [f'PSNR {one["PSNR"][n]:.1f}, SSIM {one["SSIM"][n]:.2f}' for n in range(len(rows))]
        for title, one in (quality or {}).items()
    }
    draw_sheet(pictures, rows, sheet_path(name), notes=notes or None)


def sheet_path(name: str) -> Path:
    """Returns the file of a sheet; noise is several times smaller as JPEG than as PNG."""
    return ROOT / f'docs/images/painting_{name}.jpg'


def publish(content: Mapping[str, Any], document: Path) -> None:
    """Writes the section of a document."""
    write_section(document, 'benchmarks/painting.py', section(content))


def section(content: Mapping[str, Any]) -> str:
    """Returns the Markdown text between the marks of the study."""
    (record,) = content['records']
    parts = [
        f'![Each class painted into an image by three models](images/{sheet_path("target").name})',
        f'![Images of each class by three models](images/{sheet_path("class").name})',
        'Pixels in percent that a model predicts as the class that was asked for, by who painted (rows) and who judges '
        '(columns, without smoothing); mean over the classes, three images for each:',
        judges(record['recognised']),
        f'![Images painted from their labels by three models](images/{sheet_path("labels").name})',
        f'![A box of an image painted by three models](images/{sheet_path("box").name})',
        f'Inside the box, on {len(record["images"])} images, mean with its 95 % interval over resampled images:',
        box_table(record['box']),
        'The models, mIoU in percent, clean on all validation images, the rest on eight:',
        model_table(record['models']),
        provenance(content),
        f'```bash\n{content["command"]}\n```',
    ]
    return '\n\n'.join(parts)


def judges(recognised: Mapping[str, Any]) -> str:
    """Returns the table of who recognises whose pictures."""
    names = list(next(iter(recognised['target'].values()))['road'])
    lines = [f'| from | painted by | {" | ".join(names)} |', '|---|---|' + '---:|' * len(names)]
    titles = {'target': 'an image', 'class': 'a sample of the class'}
    for sheet, painters in recognised.items():
        for painter, classes in painters.items():
            shares = (statistics.fmean(one[judge] for one in classes.values()) for judge in names)
            who = 'nobody: the start' if painter == 'start' else painter
            lines.append(f'| {titles[sheet]} | {who} | {" | ".join(f"{100 * share:.0f}" for share in shares)} |')
    return '\n'.join(lines)


def box_table(box: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Returns the table of the similarity inside the box, and how much it is above that of standard training."""
    measures = {'PSNR': ('PSNR, dB', 1), 'SSIM': ('SSIM', 3)}
    heads = [text for name, _ in measures.values() for text in (name, f'{name}, above standard')]
    lines = [f'| painted by | {" | ".join(heads)} |', '|---|' + '---:|' * len(heads)]
    for title, values in box.items():
        cells = []
        for name, (_, digits) in measures.items():
            own, reference = np.array(values[name]), np.array(box['standard'][name])
            cells.append(interval(own, digits))
            cells.append('-' if title == 'standard' else interval(own - reference, digits))
        lines.append(f'| {"nobody: the start" if title == "start" else title} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def interval(values: np.ndarray, digits: int) -> str:
    """Returns a mean and its percentile interval over resampled images.

    >>> interval(np.array([1.0, 1.0, 1.0]), 1)
    '1.0 (1.0 to 1.0)'
    """
    means = intervals(len(values), lambda drawn: {'mean': drawn @ values / len(values)}, SAMPLES, LEVEL, seed=0)
    low, high = means['mean']
    return f'{values.mean():.{digits}f} ({low:.{digits}f} to {high:.{digits}f})'


def model_table(models: Mapping[str, Any]) -> str:
    """Returns the table of the models' mIoU, clean and under attack."""
    budgets = list(models['standard']['numbers'])
    heads = ['clean, all', 'clean', *(f'`auto`, {budget}' for budget in budgets[1:])]
    lines = [f'| training | {" | ".join(heads)} | weights |', '|---|' + '---:|' * len(heads) + '---|']
    for name, one in models.items():
        cells = [one['clean']['mIoU'], *(one['numbers'][budget]['mIoU'] for budget in budgets)]
        text = ' | '.join(cell([value]) for value in cells)
        lines.append(f'| {name.partition(",")[0]} | {text} | `{one["sha256"][:16]}` |')
    return '\n'.join(lines)
