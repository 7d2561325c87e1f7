"""Measurements beside the attack's own: made of every group of images while the attacked ones are at hand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmadv.engine.attacked_group import GroupPredictor, PredictedGroup
from mmadv.models.adapter import SegmentorAdapter
from mmadv.report.evaluation import Evaluation


class Supplement(ABC):
    """A measurement of each image, kept in the image's record, and a summary of all images.

    Attributes:
        name: its key in records, and the evaluation's field.
    """

    name: str

    @property
    @abstractmethod
    def settings(self) -> Any:
        """JSON-able, everything that decides its numbers: what must not change when a run goes on."""

    @abstractmethod
    def measure(
        self, predictor: GroupPredictor, model: SegmentorAdapter, group: PredictedGroup, names: Sequence[str]
    ) -> list[Any]:
        """Returns a JSON-able value for each image of a group.

        Args:
            predictor: that attacked the group.
            model: images -> logits, of this group.
            group: the images and what the attack made of them.
            names: of the images.

        Raises:
            ImageFailed: the logits of an image are not finite.
        """

    def holds(self, record: Mapping[str, Any]) -> bool:
        """Returns whether what belongs to a stored record is there still; else its image is done again."""
        return True

    @abstractmethod
    def summarise(self, evaluation: Evaluation, records: Sequence[Mapping[str, Any]]) -> Any:
        """Returns the field of the evaluation, from the records of all images.

        Args:
            evaluation: with everything else in it.
            records: that have an entry of this name.
        """

    @abstractmethod
    def write(self, folder: Path, evaluation: Evaluation, records: Sequence[Mapping[str, Any]]) -> None:
        """Writes what belongs into a result folder beside the results."""
