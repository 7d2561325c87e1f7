"""One sheet of the shown images by radius: adversarial image, prediction and accuracy, as in SEA's figures 7 to 10."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np

from mmadv.errors import UserError
from mmadv.fields import Share
from mmadv.report.drawing import draw_file
from mmadv.report.measurement import Measurement, Option, Outcome, Picture, Section, register_measurement
from mmadv.report.pictures import Example, colour
from mmadv.report.schema import Schema
from mmadv.report.sheet import draw_sheet
from mmadv.report.table import Table, percent

FILE = 'sheet.png'
# Title of the column of the clean images.
CLEAN = '0'


@dataclass(frozen=True)
class SheetImage(Schema):
    """An image of the sheet: its name, its clean accuracy, and radius -> its accuracy under the attack."""

    image: str
    clean: Share | None
    attacked: dict[str, Share | None]


@dataclass(frozen=True)
class SheetSummary(Schema):
    """The sheet: its file, None if it could not be drawn, and its images from top to bottom."""

    file: str | None
    images: tuple[SheetImage, ...]


@register_measurement
@dataclass
class RadiusSheet(Measurement):
    """Draws the shown images as one sheet: a column for each radius, two rows for each image.

    The upper row has the image and the adversarial images. The lower row has the label and the predictions, with the
    accuracy below. Void pixels are grey.

    Raises:
        UserError: there is no attack, or no image is shown.
    """

    name: ClassVar[str] = 'sheet'
    summary: ClassVar[Any] = SheetSummary
    options: ClassVar[tuple[Option, ...]] = (
        Option(
            '--sheet',
            None,
            {
                'action': 'store_true',
                'help': 'draw the --show images as one sheet: adversarial image, prediction and accuracy by radius',
            },
        ),
    )

    def settings(self, spec: Any) -> Any:
        """Returns None, so that a run may be resumed with or without the sheet."""
        return None

    def check(self, spec: Any) -> None:
        if spec.attack is None:
            raise UserError('RadiusSheet needs an attack; name one')

    def prepare(self, context: Any) -> Any:
        if context.show == 0:
            raise UserError('RadiusSheet needs images that are shown; let show be 1 or more')
        return context.predictor

    def summarise(self, context: Any, outcome: Outcome) -> SheetSummary:
        results = {one.index: one for one in outcome.images}
        images = (
            SheetImage(one.image, one.clean, {radius: own.worst_case for radius, own in one.attacked.items()})
            for one in (results[example.index] for example in context.shown)
        )
        return SheetSummary(FILE if context.shown else None, tuple(images))

    def write(self, context: Any, folder: Path, outcome: Outcome, summary: SheetSummary) -> SheetSummary:
        """Draws the sheet; returns the summary, without a file if it cannot be drawn."""
        if not summary.images:  # the model failed on all of them
            return summary
        palette, ignore_index = context.selection.metainfo['palette'], outcome.evaluation.ignore_index
        columns, notes = sheet_columns(context.shown, summary.images, palette, ignore_index)
        rows = [text for one in summary.images for text in (PurePosixPath(one.image).stem, '')]
        path = folder / FILE
        if draw_file(path, lambda: draw_sheet(columns, rows, path, notes=notes)):
            return summary
        return SheetSummary(None, summary.images)

    @classmethod
    def files(cls, summary: SheetSummary) -> dict[str, str]:
        return {'file': summary.file} if summary.file else {}

    @classmethod
    def section(cls, summaries: Mapping[str, SheetSummary]) -> Section:
        """Returns the accuracy of each shown image by radius, and the sheets."""
        radii = list(dict.fromkeys(r for summary in summaries.values() for one in summary.images for r in one.attacked))
        rows = tuple(
            (
                name,
                one.image,
                percent(one.clean),
                *(percent(one.attacked[radius]) if radius in one.attacked else None for radius in radii),
            )
            for name, summary in summaries.items()
            for one in summary.images
        )
        caption = 'Accuracy of the shown images by radius, %'
        table = Table(('run', 'image', 'clean', *radii), rows, text_columns=2, caption=caption)
        text = 'images by radius: adversarial images, and predictions with their accuracy below'
        pictures = {
            name: [Picture(file, text) for file in cls.files(summary).values()] for name, summary in summaries.items()
        }
        return Section('Images by radius', table, pictures)


def sheet_columns(
    examples: Sequence[Example], images: Sequence[SheetImage], palette: Sequence[Sequence[int]], ignore_index: int
) -> tuple[dict[str, list[np.ndarray]], dict[str, list[str]]]:
    """Returns title -> pictures and title -> notes, as ``draw_sheet`` takes them.

    Args:
        examples: arrays of the images.
        images: their accuracies, in the same order.
        palette: one RGB colour in 0..255 per class.
        ignore_index: label of void pixels.
    """
    radii = list(examples[0].adversarial)
    columns: dict[str, list[np.ndarray]] = {title: [] for title in ('original', CLEAN, *radii)}
    notes: dict[str, list[str]] = {title: [] for title in (CLEAN, *radii)}
    for example, accuracies in zip(examples, images, strict=True):
        void = example.label == ignore_index

        def classes(one: np.ndarray, void: np.ndarray = void) -> np.ndarray:
            return colour(one, palette, void) / 255

        columns['original'] += [example.image, classes(example.label)]
        columns[CLEAN] += [example.image, classes(example.clean)]
        notes[CLEAN] += ['', _accuracy(accuracies.clean)]
        for radius in radii:
            columns[radius] += [example.adversarial[radius], classes(example.attacked[radius])]
            notes[radius] += ['', _accuracy(accuracies.attacked[radius])]
    return columns, notes


def _accuracy(value: float | None) -> str:
    return 'nothing labelled' if value is None else f'Acc: {100 * value:.1f} %'
