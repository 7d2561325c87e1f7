"""One perturbation for all test images, trained on images of the training data: the ``universal`` attack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from mmadv.attacks import Universal
from mmadv.engine.attack_regions import note_regions
from mmadv.engine.measurements.trained_once import TrainedOnce
from mmadv.engine.predictor import Predictor
from mmadv.errors import UserError
from mmadv.fields import NotNegative
from mmadv.report.measurement import Outcome, register_measurement
from mmadv.report.pictures import magnified
from mmadv.report.schema import Schema


@dataclass(frozen=True)
class UniversalSummary(Schema):
    """A universal attack, trained on ``training_images`` of ``training_data`` images; ``files``: radius -> file."""

    training_images: NotNegative
    training_data: NotNegative
    files: dict[str, str]


@register_measurement
@dataclass
class UniversalPerturbation(TrainedOnce):
    """Trains the universal attack of a run at every radius, once."""

    name: ClassVar[str] = 'universal'
    summary: ClassVar[Any] = UniversalSummary
    kind = Universal
    what = 'a universal perturbation'
    array = 'perturbation'

    def summarise(self, context: Any, outcome: Outcome) -> UniversalSummary:
        images = self._selection(context.spec)
        return UniversalSummary(len(images), len(images.dataset), {})

    def write(self, context: Any, folder: Path, outcome: Outcome, summary: UniversalSummary) -> UniversalSummary:
        """Writes every perturbation as an array and as a magnified picture."""
        return replace(summary, files=self._written(context, folder))

    @classmethod
    def files(cls, summary: UniversalSummary) -> dict[str, str]:
        return {f'files.{radius}': file for radius, file in summary.files.items()}

    def _picture(self, values: np.ndarray) -> np.ndarray:
        pixels = values if values.shape[2] == 3 else values[:, :, :1]
        return magnified(np.zeros_like(pixels), pixels)[0]

    def _read(self, context: Any, predictor: Predictor, inputs: Sequence[torch.Tensor], samples: Sequence[Any]) -> None:
        for image, sample in zip(inputs, samples, strict=True):
            if image.shape != inputs[0].shape:
                first, other = ('x'.join(map(str, one.shape[1:])) for one in (inputs[0], image))
                raise UserError(
                    f'a universal perturbation needs images of one size; {samples[0].metainfo["image_name"]} is '
                    f'{first}, {sample.metainfo["image_name"]} is {other} (height, width); resize or crop all images '
                    'to one size in the test pipeline'
                )
        if predictor.region is not None:
            assert predictor.ignore_index is not None  # a run always sets it
            note_regions(inputs, samples, predictor.region, context.spec.score, predictor.ignore_index)
