"""One picture per shown image: the image before and after the attack, and the model's predictions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mmadv.errors import UserError
from mmadv.fields import checked_exactly
from mmadv.report.drawing import check_picture_path, plain_text

VOID = (128, 128, 128)
LEGEND_CLASSES = 24
LEGEND_COLUMNS = 4
PANEL_WIDTH = 2.7


@dataclass
class Example:
    """One image with the results of the attacks at all radii.

    Attributes:
        index: the index of the image in its dataset.
        name: the name of the image.
        image: (h, w, 3) float RGB in [0, 1].
        label: (H, W) integers.
        clean: (H, W) prediction for ``image``.
        adversarial: radius -> (h, w, 3) float RGB.
        attacked: radius -> (H, W) prediction for the adversarial image.
    """

    index: int
    name: str
    image: np.ndarray
    label: np.ndarray
    clean: np.ndarray
    adversarial: dict[str, np.ndarray] = field(default_factory=dict)
    attacked: dict[str, np.ndarray] = field(default_factory=dict)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Returns the example as named arrays, for ``from_arrays``."""
        radii = list(self.adversarial)
        head = json.dumps({'index': self.index, 'name': self.name, 'radii': radii}).encode()
        arrays = {
            'head': np.frombuffer(head, dtype=np.uint8),
            'image': self.image,
            'label': self.label,
            'clean': self.clean,
        }
        for number, radius in enumerate(radii):
            arrays[f'adversarial{number}'] = self.adversarial[radius]
            arrays[f'attacked{number}'] = self.attacked[radius]
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Example:
        """Returns the example of the arrays that ``to_arrays`` returned."""
        head = json.loads(arrays['head'].tobytes())
        return cls(
            index=head['index'],
            name=head['name'],
            image=arrays['image'],
            label=arrays['label'],
            clean=arrays['clean'],
            adversarial={radius: arrays[f'adversarial{number}'] for number, radius in enumerate(head['radii'])},
            attacked={radius: arrays[f'attacked{number}'] for number, radius in enumerate(head['radii'])},
        )


def colour(classes: np.ndarray, palette: Sequence[Sequence[int]], void: np.ndarray) -> np.ndarray:
    """Returns a class map as (H, W, 3) uint8 colours; pixels are grey if ``void`` is True there."""
    colours = np.asarray(palette, dtype=np.uint8)[np.where(void, 0, classes)]
    colours[void] = VOID
    return colours


def magnified(image: np.ndarray, adversarial: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns the perturbation, magnified as far as [0, 1] allows and added to mid-grey, and the factor."""
    delta = adversarial - image
    largest = float(np.abs(delta).max())
    factor = 0.5 / largest if largest > 0 else 1.0
    return np.clip(0.5 + factor * delta, 0, 1), factor


@checked_exactly
@plain_text
def draw_example(
    example: Example,
    path: str | Path,
    *,
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    ignore_index: int = 255,
) -> None:
    """Writes the picture of one image with its label, its predictions and its perturbations.

    The first row has the image, the label and the clean prediction. Each radius has a row below. The legend at the
    bottom shows the classes that occur. Each row has three panels, so the picture is readable on a phone too. Void
    pixels are grey.

    Args:
        example: the arrays.
        path: the path of the file; its suffix decides the format.
        classes: the names of the classes.
        palette: one RGB colour in 0..255 per class.
        ignore_index: the label of void pixels.

    Raises:
        UserError: the suffix names no format, or classes and palette differ in length.
    """
    check_picture_path(path)
    if len(classes) != len(palette):
        raise UserError(f'there are {len(classes)} classes and a palette of {len(palette)} colours; give one for each')
    void = example.label == ignore_index
    rows = [_clean_panels(example, palette, void)]
    rows += [_attacked_panels(example, radius, palette, void) for radius in example.adversarial]
    handles = _legend(example, classes, palette, void)
    legend_rows = -(-len(handles) // LEGEND_COLUMNS)
    height, width = example.image.shape[:2]
    panel = PANEL_WIDTH * min(max(height / width, 0.4), 1.5) + 0.75
    figure = Figure(figsize=(3 * PANEL_WIDTH, panel * len(rows) + 0.33 * legend_rows + 0.6), layout='constrained')
    FigureCanvasAgg(figure)
    # Matplotlib lays out ticks even if the axes are off. That takes as long as all the rest.
    without_ticks: dict[str, Any] = {'xticks': [], 'yticks': []}
    grid = figure.subplots(len(rows), 3, squeeze=False, subplot_kw=without_ticks)
    for line, panels in zip(grid, rows, strict=True):
        for axes, (title, pixels) in zip(line, panels, strict=True):
            axes.axis('off')
            axes.imshow(pixels, interpolation='nearest')
            axes.set_title(title, fontsize=14)
    figure.legend(handles=handles, loc='outside lower center', ncols=min(LEGEND_COLUMNS, len(handles)), fontsize=13)
    figure.suptitle(example.name, fontsize=15)
    figure.savefig(path, dpi=80)


def _clean_panels(example: Example, palette: Sequence[Sequence[int]], void: np.ndarray) -> list[tuple[str, np.ndarray]]:
    return [
        ('image\n', example.image),
        ('label\n', colour(example.label, palette, void)),
        (f'clean prediction\n{_correct(example.clean, example.label, void)}', colour(example.clean, palette, void)),
    ]


def _attacked_panels(
    example: Example, radius: str, palette: Sequence[Sequence[int]], void: np.ndarray
) -> list[tuple[str, np.ndarray]]:
    adversarial, prediction = example.adversarial[radius], example.attacked[radius]
    perturbation, factor = magnified(example.image, adversarial)
    return [
        (f'adversarial\n{radius}', adversarial),
        (f'perturbation\n× {factor:.3g}', perturbation),
        (f'attacked prediction\n{_correct(prediction, example.label, void)}', colour(prediction, palette, void)),
    ]


def _legend(
    example: Example, classes: Sequence[str], palette: Sequence[Sequence[int]], void: np.ndarray
) -> list[Patch]:
    maps = (example.label, example.clean, *example.attacked.values())
    present = np.unique(np.concatenate([one[~void] for one in maps]))[:LEGEND_CLASSES]
    handles = [Patch(facecolor=_face(palette[k]), edgecolor='black', label=classes[k]) for k in present]
    return [*handles, Patch(facecolor=_face(VOID), edgecolor='black', label='void')]


def _face(rgb: Sequence[int]) -> tuple[float, float, float]:
    red, green, blue = rgb
    return red / 255, green / 255, blue / 255


def _correct(prediction: np.ndarray, label: np.ndarray, void: np.ndarray) -> str:
    if void.all():
        return 'nothing labelled'
    return f'{100 * (prediction == label)[~void].mean():.1f} % correct'
