"""Table and pictures of what randomized smoothing certified."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmadv.report.drawing import plain_text
from mmadv.report.pictures import colour

ABSTAINED = (255, 255, 255)


def certificate_table(results: Mapping[str, Any]) -> str:
    """Returns the table that ``mmadv certify`` prints: a line per radius, in percent.

    Args:
        results: the content of ``certificates.json``.
    """
    smoothing, smoothed = results['smoothing'], results['smoothed']
    lines = [
        f'{smoothing["kind"]} smoothing, sigma {smoothing["sigma"]:g}, n0 {smoothing["n0"]}, n {smoothing["n"]}, '
        f'alpha {smoothing["alpha"]:g} per image ({smoothing["bound"]}, {smoothing["correction"]})',
        f'{"L2 radius":>9}  {"tau":>6}  {"accuracy":>8}  {"mIoU":>6}  {"guaranteed mIoU":>15}  {"abstained":>9}',
        f'{"-":>9}  {"-":>6}  {_percent(smoothed["aAcc"]):>8}  {_percent(smoothed["mIoU"]):>6}  {"-":>15}  {"-":>9}',
    ]
    lines += [
        f'{row["radius"]:9.4f}  {row["tau"]:6g}  {_percent(row["certified_accuracy"]):>8}  '
        f'{_percent(row["certified_mIoU"]):>6}  {_percent(row["guaranteed_mIoU"]):>15}  {_percent(row["abstained"]):>9}'
        for row in results['certified']
    ]
    return '\n'.join(lines)


@plain_text
def draw_certificate(
    image: np.ndarray,
    label: np.ndarray,
    classes: np.ndarray,
    certified: Mapping[float, np.ndarray],
    path: str | Path,
    *,
    palette: Sequence[Sequence[int]],
    ignore_index: int = 255,
) -> None:
    """Writes a picture: image, label, smoothed prediction, and for each radius what is certified, the rest white.

    Args:
        image: (h, w, 3) RGB in [0, 1]; other than three channels are shown by the first.
        label: (H, W) integers.
        classes: (H, W) smoothed prediction.
        certified: radius -> (H, W) bool.
        path: of the file.
        palette: one RGB colour in 0..255 per class.
        ignore_index: label of void pixels.
    """
    void, nowhere = label == ignore_index, np.zeros_like(label, dtype=bool)
    shown = image if image.shape[2] == 3 else image[:, :, :1].repeat(3, axis=2)
    panels = [('image', shown), ('label', colour(label, palette, void))]
    panels.append(('smoothed prediction', colour(classes, palette, nowhere)))
    for radius, where in certified.items():
        pixels = colour(classes, palette, nowhere)
        pixels[~where] = ABSTAINED
        panels.append((f'certified to {radius:.3f}\n{100 * (~where).mean():.1f} % abstained', pixels))
    figure = Figure(figsize=(2.6 * len(panels), 3.1), layout='constrained')
    FigureCanvasAgg(figure)
    for axes, (title, pixels) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        axes.imshow(pixels, interpolation='nearest')
        axes.set_title(title, fontsize=11)
        axes.set(xticks=[], yticks=[])  # the frame stays, around white pixels
    figure.savefig(path, dpi=80)


def _percent(fraction: float | None) -> str:
    return '-' if fraction is None else f'{100 * fraction:.2f}'
