"""Adversarial images as files: rounded to 8 bits, and what is left of the attack then."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np

from mmadv.engine.attacked_group import GroupPredictor, PredictedGroup
from mmadv.engine.data import Selection
from mmadv.engine.supplements import Supplement
from mmadv.errors import UserError
from mmadv.evaluation.attack_metric import metric_values
from mmadv.evaluation.image_record import to_areas, to_counts
from mmadv.models.adapter import SegmentorAdapter
from mmadv.report.evaluation import Evaluation, RoundedValues
from mmadv.robustness import count

# Inside the output folder, and inside that of an unfinished run.
FOLDER = 'adversarial'
# Grey levels by which a file that is read back may differ: a pipeline that computes in floats rounds nowhere.
ROUNDING = 0.5
IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp', '.ppm')


class SavedImages(Supplement):
    """Writes each adversarial image as an 8-bit PNG file, and predicts what was written.

    A file is in the folder of its radius, named as the image is below the dataset's image folder; '/' of a radius
    becomes '_'. It has the size of what was attacked: of the network's input after the pipeline's resizing, or of the
    image file. Each file is read back through the dataset's own pipeline, which must give what was scored.

    Args:
        out: output folder of the run.
        unfinished: where its results are while it lasts.
        selection: the images of the run.
        rgb: whether images are loaded as RGB, not as BGR; where a file read back says otherwise, that counts.

    Raises:
        UserError: two images would be written to one file.
    """

    name = 'rounded'

    def __init__(self, out: Path, unfinished: Path, selection: Selection, *, rgb: bool) -> None:
        self.folders = (unfinished / FOLDER, out / FOLDER)
        self.selection = selection
        self.rgb = rgb
        self.indexes = selection.names
        owners: dict[PurePosixPath, str] = {}
        for name in self.indexes:
            other = owners.setdefault(file_name('0', name), name)
            if other != name:
                raise UserError(
                    f'--save-images would write {other} and {name} to one PNG file; rename one of the images'
                )

    @property
    def settings(self) -> Any:
        return {'bits': 8}

    def measure(
        self, predictor: GroupPredictor, model: SegmentorAdapter, group: PredictedGroup, names: Sequence[str]
    ) -> list[Any]:
        """Returns radius -> areas of the prediction for the rounded worst-case image; radius 0 has none."""
        found: list[dict[str, Any]] = [{} for _ in names]
        for radius, attacked in group.attacked.items():
            if attacked.images is None:
                continue
            levels = (attacked.images * 255).round()
            predictions = predictor.finite_predictions(model, levels / 255, names, 'the rounded adversarial image')
            for n, name in enumerate(names):
                self._save(levels[n].cpu().numpy().astype(np.uint8), file_name(radius, name), self.indexes[name])
                counts = count(
                    predictions[n : n + 1],
                    group.scored_labels[n : n + 1],
                    predictor.num_classes,
                    group.ignore_index,
                    group.void,
                )
                found[n][radius] = to_areas(counts)
        return found

    def holds(self, record: Mapping[str, Any]) -> bool:
        return all(self._find(file_name(radius, record['image'])) for radius in record[self.name])

    def summarise(self, evaluation: Evaluation, records: Sequence[Mapping[str, Any]]) -> Any:
        """Returns radius -> metrics of the rounded images."""
        classes, result = len(evaluation.classes), {}
        for radius in records[0][self.name]:
            values = metric_values(to_counts([record[self.name][radius] for record in records], classes))
            worst = evaluation.attacked[radius].worst_case
            difference = {name: value - worst[name] for name, value in values.scalars.items()}
            result[radius] = RoundedValues(**vars(values), difference=difference)
        return result

    def write(self, folder: Path, evaluation: Evaluation, records: Sequence[Mapping[str, Any]]) -> None:
        """Puts the files of all images into a folder of results.

        Raises:
            UserError: a file is not there, as on machines that share no folder.
        """
        for record in records:
            for radius in record[self.name]:
                name = file_name(radius, record['image'])
                source = self._find(name)
                if source is None:
                    raise UserError(
                        f'the saved image {self.folders[0] / name} is not there; give an --out that all machines '
                        'share, and --resume'
                    )
                target = folder / FOLDER / name
                if target.exists():  # a dataset may hold an image twice
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(source, target)
                except OSError:  # no hard links there
                    shutil.copyfile(source, target)

    def _find(self, name: PurePosixPath) -> Path | None:
        return next((folder / name for folder in self.folders if (folder / name).is_file()), None)

    def _save(self, levels: np.ndarray, name: PurePosixPath, index: int) -> None:
        """Writes (C, h, w) grey levels so that the pipeline of the dataset reads them back."""
        if len(levels) not in (1, 3):
            raise UserError(f'--save-images writes images of one or three channels; found {len(levels)}')
        path = self.folders[0] / name
        self._write(levels, path)
        problem = self._difference(levels, path, index)
        if problem and len(levels) == 3:
            self.rgb = not self.rgb
            self._write(levels, path)
            if self._difference(levels, path, index) is None:
                return
            self.rgb = not self.rgb
        if problem:
            path.unlink(missing_ok=True)
            raise UserError(
                f'--save-images: the test pipeline reads the image back from its file with {problem}; the file would '
                'not score what is reported: leave out --save-images, or the step of the pipeline that does it'
            )

    def _difference(self, levels: np.ndarray, path: Path, index: int) -> str | None:
        """Returns how a file read back differs from what was attacked, None where it does not."""
        inputs = self.selection.load_instead(index, path)
        if inputs is None:
            return None
        read = inputs.numpy()
        if read.shape != levels.shape:
            return f'the shape {read.shape} in place of {levels.shape}'
        largest = float(np.abs(read.astype(np.float64) - levels).max())
        return None if largest <= ROUNDING else f'values that differ by up to {largest:g} of 255'

    def _write(self, levels: np.ndarray, path: Path) -> None:
        pixels = levels.transpose(1, 2, 0)
        ordered = pixels[:, :, ::-1] if self.rgb else pixels  # OpenCV writes BGR
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
    """Returns where the adversarial image lies below the folder of saved images.

    >>> str(file_name('4/255', 'city/one.v2.jpg')), str(file_name('0.02', '17'))
    ('4_255/city/one.v2.png', '0.02/17.png')

    Raises:
        UserError: the image's name leads out of the folder.
    """
    path = PurePosixPath(image)
    if path.is_absolute() or '..' in path.parts:
        raise UserError(f'--save-images: the image {image} is not below the image folder of the dataset')
    stem = path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name
    return PurePosixPath(radius.replace('/', '_')) / path.with_name(f'{stem}.png')
