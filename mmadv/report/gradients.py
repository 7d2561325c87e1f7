"""What ``mmadv test --gradients`` measured, as types, text and a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmadv.printing import printable
from mmadv.report.schema import Schema
from mmadv.report.table import Table

MEASURES = {
    'cosine': 'cosine to g',
    'cosine_present': 'classes in the image',
    'cosine_absent': 'other classes',
    'high_frequency': 'high-frequency share',
    'image_high_frequency': 'of the images',
}


@dataclass(frozen=True)
class ImageGradients(Schema):
    """Measures of one ``image``."""

    image: str
    cosine: float | None
    high_frequency: float | None


@dataclass(frozen=True)
class GradientSheet(Schema):
    """The picture of gradients: its ``file``, the ``images`` and ``classes`` on it, and the ``attack`` towards them."""

    file: str
    images: tuple[str, ...]
    classes: tuple[str, ...]
    attack: dict[str, Any]


@dataclass(frozen=True)
class Gradients(Schema):
    """Alignment and sharpness of input gradients, means over images and classes.

    Attributes:
        target: ``type`` and settings of the targets g(x, t), and ``of``, what their examples are.
        over: pixels of a class' score.
        classes: whose scores were differentiated.
        without_example: classes that were left out for want of an example.
        cosine: of the gradients to g.
        cosine_present: over the classes that an image holds.
        cosine_absent: over the other classes.
        high_frequency: share of the gradients' energy above a quarter of a cycle per pixel.
        image_high_frequency: that of the images themselves.
        per_image: of each image.
        sheet: the picture, None without.
    """

    target: dict[str, Any]
    over: str
    classes: tuple[str, ...]
    without_example: tuple[str, ...]
    cosine: float | None
    cosine_present: float | None
    cosine_absent: float | None
    high_frequency: float | None
    image_high_frequency: float | None
    per_image: tuple[ImageGradients, ...]
    sheet: GradientSheet | None

    @property
    def target_text(self) -> str:
        """Returns what the targets are, in words."""
        return f'{self.target["type"]}, {self.target["of"]}'


def number(value: float | None) -> str:
    """Returns a measure with three decimals, '-' where there is none."""
    return '-' if value is None else f'{value:.3f}'


def gradients_text(gradients: Gradients) -> str:
    """Returns the lines that are printed."""
    values = {name: number(getattr(gradients, name)) for name in MEASURES}
    lines = [
        f'input gradients of {len(gradients.per_image)} images and {len(gradients.classes)} class scores; '
        f'targets g: {gradients.target_text}',
        f'  cosine to g           {values["cosine"]}  ({values["cosine_present"]} for the classes in the image, '
        f'{values["cosine_absent"]} for the others)',
        f'  high-frequency share  {values["high_frequency"]}  ({values["image_high_frequency"]} of the images, '
        '0.804 of white noise)',
    ]
    if gradients.without_example:
        lines.append(f'  left out, without an example: {", ".join(gradients.without_example)}')
    return '\n'.join(map(printable, lines))


def gradients_table(measured: Mapping[str, Gradients]) -> Table:
    """Returns one row for each run that measured its gradients: name, targets and measures.

    Args:
        measured: name of the run -> its gradients.
    """
    rows = tuple(
        (name, gradients.target_text, *(number(getattr(gradients, key)) for key in MEASURES))
        for name, gradients in measured.items()
    )
    header = ('run', 'targets g', *MEASURES.values())
    return Table(header, rows, text_columns=2, caption='Mean over images and classes')
