"""The least and the most robust of many images, found while they come."""

from __future__ import annotations

from collections.abc import Iterable

from mmadv.evaluation.image_record import ImageRecord

LEAST, MOST = 'least robust', 'most robust'


def robustness(correct: Iterable[int], valid: int) -> float | None:
    """Returns the accuracy of an image under attack, as the mean over the radii; None where nothing is labelled.

    Args:
        correct: pixels of the worst case that are as labelled, at each radius.
        valid: labelled pixels.
    """
    correct = list(correct)
    return sum(correct) / (valid * len(correct)) if valid else None


def robustness_of_record(record: ImageRecord) -> float | None:
    """Returns the ``robustness`` of an image from its record; its clean accuracy where nothing attacked it."""
    correct = [min(map(_correct, members.values())) for members in record.attacked.values()]
    return robustness(correct or [_correct(record.clean)], sum(row[3] for row in record.clean))


class Extremes:
    """The least and the most robust images of those offered so far.

    Of equally robust images those of the lower index go first. What is among the extremes of all images is so among
    those of any part of them: parts may come in any order and from several processes, and none of the final ones was
    ever passed over.

    Args:
        number: of either kind.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.values: dict[int, float] = {}

    def offer(self, index: int, value: float | None) -> bool:
        """Takes an image, in the place of an earlier one of its index, and returns whether it is an extreme now."""
        if value is None or not self.number:
            return False
        self.values[index] = value
        kinds = self.kinds()
        self.values = {known: self.values[known] for known in kinds}
        return index in kinds

    def kinds(self) -> dict[int, str]:
        """Returns index -> kind; a few images, which are both, are the least robust ones."""
        least = sorted(self.values, key=lambda index: (self.values[index], index))[: self.number]
        most = sorted(self.values, key=lambda index: (-self.values[index], index))[: self.number]
        return {**dict.fromkeys(most, MOST), **dict.fromkeys(least, LEAST)}


def _correct(areas: Iterable[list[int]]) -> int:
    return sum(row[1] for row in areas)
