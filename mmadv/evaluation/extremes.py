"""The least and the most robust of many images, found while the images are processed."""

from __future__ import annotations

from collections.abc import Iterable

from mmadv.evaluation.image_record import ImageRecord

LEAST, MOST = 'least robust', 'most robust'


def robustness(correct: Iterable[int], valid: int) -> float | None:
    """Returns the accuracy of an image under attack, as the mean over the radii; None if no pixel is labelled.

    Args:
        correct: number of correct pixels in the worst case, at each radius.
        valid: number of labelled pixels.
    """
    correct = list(correct)
    return sum(correct) / (valid * len(correct)) if valid else None


def robustness_of_record(record: ImageRecord) -> float | None:
    """Returns the ``robustness`` of an image from its record; its clean accuracy if no attack was run."""
    correct = [min(map(_correct, members.values())) for members in record.attacked.values()]
    return robustness(correct or [_correct(record.clean)], sum(row[3] for row in record.clean))


class Extremes:
    """The least and the most robust images of those offered so far.

    If images are equally robust, those of the lower index go first. An extreme of all images is also an extreme of any
    part of them that contains it. Parts may therefore come in any order and from several processes, and no final
    extreme is ever left out.

    Args:
        number: number of images of each kind.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.values: dict[int, float] = {}

    def offer(self, index: int, value: float | None) -> bool:
        """Adds an image, in place of an earlier one of the same index, and returns whether it is an extreme now."""
        if value is None or not self.number:
            return False
        self.values[index] = value
        kinds = self.kinds()
        self.values = {known: self.values[known] for known in kinds}
        return index in kinds

    def kinds(self) -> dict[int, str]:
        """Returns index -> kind; if an image is of both kinds, because there are few, it is a least robust one."""
        least = sorted(self.values, key=lambda index: (self.values[index], index))[: self.number]
        most = sorted(self.values, key=lambda index: (-self.values[index], index))[: self.number]
        return {**dict.fromkeys(most, MOST), **dict.fromkeys(least, LEAST)}


def _correct(areas: Iterable[list[int]]) -> int:
    return sum(row[1] for row in areas)
