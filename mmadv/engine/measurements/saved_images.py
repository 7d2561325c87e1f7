"""Adversarial images as 8-bit files, and the success of the attack after the rounding."""

from __future__ import annotations

import os
import shutil
import uuid
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import cv2
import numpy as np

from mmadv.engine.predictor import finite_predictions
from mmadv.errors import UserError
from mmadv.evaluation.attack_metric import metric_values
from mmadv.evaluation.image_record import to_areas, to_counts
from mmadv.report.evaluation import MetricValues
from mmadv.report.measurement import Measurement, Option, Outcome, register_measurement
from mmadv.report.metrics import CURVES
from mmadv.report.table import percent
from mmadv.robustness import count

# Folder of the images, inside the output folder and inside the folder of an unfinished run.
FOLDER = 'adversarial'
# Largest difference of a file that is read back, in grey levels: a pipeline that computes in floats does not round.
ROUNDING = 0.5
IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp', '.ppm')


@dataclass(frozen=True, kw_only=True)
class RoundedValues(MetricValues):
    """Metrics of images that were rounded to 8 bits.

    Attributes:
        difference: metric -> its value minus the value of the unrounded worst case.
    """

    difference: dict[str, float | None]


def _above(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


@register_measurement
@dataclass
class SavedImages(Measurement):
    """Writes each adversarial image as an 8-bit PNG file, and predicts the rounded image.

    Each radius has a folder; '/' of a radius becomes '_'. Inside it, a file has the image's path below the dataset's
    image folder. The file has the size of the attacked image: the size of the network's input after the pipeline's
    resizing, or the size of the image file. Each file is read back through the dataset's own pipeline, and the result
    must be the scored image.

    Raises:
        UserError: two images would be written to one file, or a file that is read back differs from the scored image.
    """

    # True if a file that was read back shows that the pipeline loads another channel order than the run assumes.
    _swapped: bool = field(default=False, init=False, repr=False)

    name: ClassVar[str] = 'rounded'
    key: ClassVar[str] = 'rounded'
    summary: ClassVar[Any] = dict[str, RoundedValues]
    options: ClassVar[tuple[Option, ...]] = (
        Option(
            '--save-images',
            None,
            {
                'action': 'store_true',
                'help': 'write adversarial images as 8-bit PNG files, and measure what the rounding costs the attack',
            },
        ),
    )

    def settings(self, spec: Any) -> Any:
        return {'bits': 8}

    def check(self, spec: Any) -> None:
        if spec.attack is None:
            raise UserError('SavedImages needs an attack that makes adversarial images; name one')

    def prepare(self, context: Any) -> Any:
        if context.store is None:
            raise UserError('SavedImages needs a result folder, which only the command mmadv test has')
        owners: dict[PurePosixPath, str] = {}
        for name in context.selection.names:
            other = owners.setdefault(file_name('0', name), name)
            if other != name:
                raise UserError(f'SavedImages would write {other} and {name} to one PNG file; rename one of the images')
        return context.predictor

    def measure(self, context: Any, group: Any) -> list[Any]:
        """Returns radius -> areas of the prediction for each rounded worst-case image; radius 0 has no areas."""
        areas: list[dict[str, Any]] = [{} for _ in group.names]
        for radius, attacked in group.attacked.items():
            if attacked.images is None:
                continue
            levels = (attacked.images * 255).round()
            predictions = finite_predictions(group.model, levels / 255, group.names, 'the rounded adversarial image')
            for n, name in enumerate(group.names):
                pixels = levels[n].cpu().numpy().astype(np.uint8)
                self._save(context, pixels, file_name(radius, name), group.indexes[n])
                counts = count(
                    predictions[n : n + 1],
                    group.scored_labels[n : n + 1],
                    context.predictor.num_classes,
                    group.ignore_index,
                    group.void,
                )
                areas[n][radius] = to_areas(counts)
        return areas

    def holds(self, context: Any, record: Any) -> bool:
        radii = record.measurements.get(self.key, {})
        return all(_find(context, file_name(radius, record.image)) for radius in radii)

    def summarise(self, context: Any, outcome: Outcome) -> dict[str, RoundedValues]:
        """Returns radius -> metrics of the rounded images."""
        classes, result = len(outcome.evaluation.classes), {}
        for radius in outcome.records[0].measurements[self.key]:
            areas = (record.measurements[self.key][radius] for record in outcome.records)
            values = metric_values(to_counts(areas, classes))
            worst = outcome.evaluation.attacked[radius].worst_case
            difference = {name: _above(value, worst[name]) for name, value in values.scalars.items()}
            result[radius] = RoundedValues(**vars(values), difference=difference)
        return result

    def write(self, context: Any, folder: Path, outcome: Outcome, summary: Any) -> Any:
        """Puts the files of all images into a folder of results.

        Raises:
            UserError: a file is missing, for example because machines share no folder.
        """
        for record in outcome.records:
            for radius in record.measurements[self.key]:
                name = file_name(radius, record.image)
                source = _find(context, name)
                if source is None:
                    raise UserError(
                        f'the saved image {_folders(context)[0] / name} is missing; resume the run in an output '
                        'folder that all machines share'
                    )
                target = folder / FOLDER / name
                if target.exists():  # a dataset may hold an image twice
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(source, target)
                except OSError:  # the file system has no hard links
                    shutil.copyfile(source, target)
        return summary

    @classmethod
    def sentences(cls, summary: dict[str, RoundedValues]) -> list[str]:
        """Returns a sentence on the effect of the rounding on the attack, for every radius."""
        said = []
        for radius, rounded in summary.items():
            parts = []
            for metric in CURVES:
                difference = rounded.difference[metric.name]
                points = '' if difference is None else f' ({100 * difference:+.2f} points)'
                parts.append(f'{metric.label} {percent(rounded[metric.name])} %{points}')
            said.append(f'{radius}: images rounded to 8 bits and predicted again: {", ".join(parts)}')
        return said

    def _save(self, context: Any, levels: np.ndarray, name: PurePosixPath, index: int) -> None:
        """Writes (C, h, w) grey levels so that the pipeline of the dataset reads them back."""
        if len(levels) not in (1, 3):
            raise UserError(f'SavedImages writes images of one or three channels; found {len(levels)}')
        path = _folders(context)[0] / name
        _write(levels, path, context.rgb != self._swapped)
        problem = _difference(context, levels, path, index)
        if problem and len(levels) == 3:
            _write(levels, path, context.rgb == self._swapped)
            if _difference(context, levels, path, index) is None:
                self._swapped = not self._swapped
                return
        if problem:
            path.unlink(missing_ok=True)
            raise UserError(
                f'SavedImages: the test pipeline reads the saved image back with {problem}, so the file would not '
                'give the reported score; leave out SavedImages, or the step of the pipeline that changes the image'
            )


def _folders(context: Any) -> tuple[Path, Path]:
    """Returns the folder of the files during the run, and the folder of the files of a finished run."""
    return context.store.folder / FOLDER, context.store.folder.parent / FOLDER


def _find(context: Any, name: PurePosixPath) -> Path | None:
    return next((folder / name for folder in _folders(context) if (folder / name).is_file()), None)


def _difference(context: Any, levels: np.ndarray, path: Path, index: int) -> str | None:
    """Returns how a file that is read back differs from the attacked image; None if it does not."""
    inputs = context.selection.load_instead(index, path)
    if inputs is None:
        return None
    read = inputs.numpy()
    if read.shape != levels.shape:
        return f'the shape {read.shape} in place of {levels.shape}'
    largest = float(np.abs(read.astype(np.float64) - levels).max())
    return None if largest <= ROUNDING else f'values that differ by up to {largest:g} of 255'


def _write(levels: np.ndarray, path: Path, rgb: bool) -> None:
    pixels = levels.transpose(1, 2, 0)
    ordered = pixels[:, :, ::-1] if rgb else pixels  # OpenCV writes BGR
    _, data = cv2.imencode('.png', np.ascontiguousarray(ordered))
    temporary = path.with_name(f'.{uuid.uuid4().hex}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data.tobytes())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f'{path} cannot be written: {error.strerror or error}; make room there') from error


def file_name(radius: str, image: str) -> PurePosixPath:
    """Returns the path of an adversarial image below the folder of saved images.

    >>> str(file_name('4/255', 'city/one.v2.jpg')), str(file_name('0.02', '17'))
    ('4_255/city/one.v2.png', '0.02/17.png')

    Raises:
        UserError: the image's name points outside the folder.
    """
    path = PurePosixPath(image)
    if path.is_absolute() or '..' in path.parts:
        raise UserError(f'SavedImages: the image {image} is not below the image folder of the dataset')
    stem = path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name
    return PurePosixPath(radius.replace('/', '_')) / path.with_name(f'{stem}.png')
