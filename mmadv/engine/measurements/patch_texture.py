"""One patch for all test images, trained on images of the training data or given: the ``universal-patch`` attack."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np

from mmadv.attacks.patch import UniversalPatch
from mmadv.attacks.trained_attack import TrainedAttack
from mmadv.engine.attack_regions import PatchRegion
from mmadv.engine.measurements.trained_once import TrainedOnce
from mmadv.engine.predictor import Predictor
from mmadv.errors import UserError
from mmadv.fields import NotNegative, Positive
from mmadv.report.measurement import Option, Outcome, Picture, Section, register_measurement
from mmadv.report.schema import Schema
from mmadv.report.table import Table


@dataclass(frozen=True)
class PatchSummary(Schema):
    """A patch for all images.

    Attributes:
        training_images: number of images that it was trained on; 0 for a given patch.
        training_data: number of images of the training data; 0 for a given patch.
        given: the file that the patch was read from; None for a trained patch.
        size: height and width of its texture in pixels.
        files: radius -> its array; the picture beside it has the suffix .png.
    """

    training_images: NotNegative
    training_data: NotNegative
    given: str | None
    size: tuple[Positive, Positive]
    files: dict[str, str]


@register_measurement
@dataclass
class PatchTexture(TrainedOnce):
    """Trains the patch of a run once, or reads it from a picture.

    Args:
        file: a picture of 8 bits for each colour, such as the one that another run has written; None trains a patch.

    Raises:
        UserError: the file is missing or no picture, or the attack is another one.
    """

    file: str | None = None
    _file_pixels: np.ndarray | None = field(default=None, init=False, repr=False)

    name: ClassVar[str] = 'patch'
    summary: ClassVar[Any] = PatchSummary
    options: ClassVar[tuple[Option, ...]] = (
        Option(
            '--patch',
            'file',
            {
                'metavar': 'FILE.png',
                'help': 'with --attack universal-patch: paste this picture, such as patch/patch.png of another run, '
                'instead of training a patch',
            },
        ),
    )
    kind = UniversalPatch
    what = 'a patch'
    array = 'texture'

    def __post_init__(self) -> None:
        if self.file is None:
            return
        path = Path(self.file)
        self._file_pixels = cv2.imread(self.file, cv2.IMREAD_COLOR) if path.is_file() else None
        if self._file_pixels is None:
            raise UserError(f'PatchTexture.file: {self.file!r} is missing or is no picture; give a PNG file')

    def settings(self, spec: Any) -> Any:
        if self._file_pixels is None:
            return super().settings(spec)
        return {'given': hashlib.sha256(self._file_pixels.tobytes()).hexdigest(), 'size': list(self._file_pixels.shape)}

    def check(self, spec: Any) -> None:
        if not isinstance(spec.attack, UniversalPatch):
            raise UserError('PatchTexture.file is for the attack UniversalPatch; name that attack, or leave it out')
        super().check(spec)

    def prepare(self, context: Any) -> Any:
        """Returns the predictor with the patch, and with the region that its size gives."""
        predictor = super().prepare(context)
        attack = next(one for one in predictor.attacks.values() if one is not None)
        return replace(predictor, region=PatchRegion(attack, predictor.seed))

    def summarise(self, context: Any, outcome: Outcome) -> PatchSummary:
        attack = next(one for one in context.predictor.attacks.values() if one is not None)
        if self._file_pixels is not None:
            return PatchSummary(0, 0, self.file, attack.size, {})
        images = self._selection(context.spec)
        return PatchSummary(len(images), len(images.dataset), None, attack.size, {})

    def write(self, context: Any, folder: Path, outcome: Outcome, summary: PatchSummary) -> PatchSummary:
        """Writes the patch as an array and as a picture."""
        return replace(summary, files=self._written(context, folder))

    @classmethod
    def sentences(cls, summary: PatchSummary) -> list[str]:
        how = f'trained on {summary.training_images} of {summary.training_data} training images'
        height, width = summary.size
        return [f'the patch of {height}x{width} pixels was {f"read from {summary.given}" if summary.given else how}']

    @classmethod
    def files(cls, summary: PatchSummary) -> dict[str, str]:
        pictures = {f'{radius}.png': str(Path(file).with_suffix('.png')) for radius, file in summary.files.items()}
        return {f'files.{radius}': file for radius, file in {**summary.files, **pictures}.items()}

    @classmethod
    def section(cls, summaries: Mapping[str, PatchSummary]) -> Section:
        """Returns the origin of each run's patch, and its picture."""
        rows = tuple((name, *cls.sentences(summary)) for name, summary in summaries.items())
        pictures = {
            name: [Picture(file, 'the patch') for key, file in cls.files(summary).items() if key.endswith('.png')]
            for name, summary in summaries.items()
        }
        return Section('Patch', Table(('run', 'patch'), rows, text_columns=2), pictures)

    def _stem(self, radius: str) -> str:
        return 'patch'

    def _picture(self, values: np.ndarray) -> np.ndarray:
        return values

    def _trained(self, context: Any, radius: str, attack: TrainedAttack, predictor: Predictor) -> np.ndarray:
        if self._file_pixels is None:
            return super()._trained(context, radius, attack, predictor)
        ordered = self._file_pixels[:, :, ::-1] if context.rgb else self._file_pixels  # OpenCV reads BGR
        return (ordered.transpose(2, 0, 1) / 255).copy()
