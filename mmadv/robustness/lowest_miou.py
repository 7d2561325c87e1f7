"""The lowest mIoU over a dataset if one member of an ensemble is chosen for each image.

The mIoU is a mean of ratios of sums over images, so the best member of an image depends on the choices for the others.
There are members ** images choices, too many to try all. A local search from several starts gives upper bounds of the
minimum; ``miou_bound`` gives a lower bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmadv.fields import NotNegative, Seed, checked
from mmadv.robustness.counts import Counts, metrics, take_counts, worst_case
from mmadv.robustness.miou_bound import miou_bound

RANDOM_STARTS = 4
# A swap must lower the mIoU by more than this; a smaller gain may be rounding.
GAIN = 1e-12


@dataclass(frozen=True)
class LowestMIoU:
    """The result of the search for the lowest mIoU over a dataset.

    Attributes:
        counts: the counts of the chosen predictions.
        choice: (N,) int64, index of the chosen member of each image.
        value: the mIoU of ``counts``, the lowest over the starts.
        lower_bound: no choice of members has a lower mIoU.
        starts: name of a start -> mIoU at the end of the search from it. The starts are 'worst_case', the members,
            'random 1' and on, and 'bound', the choice at which the lower bound was found.
    """

    counts: Counts
    choice: np.ndarray
    value: float
    lower_bound: float
    starts: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Returns ``value``, ``lower_bound``, ``spread`` (highest less lowest start) and ``starts``; None for nan."""

        def number(value: float) -> float | None:
            return None if np.isnan(value) else value

        values = list(self.starts.values())
        return {
            'value': number(self.value),
            'lower_bound': number(self.lower_bound),
            'spread': number(max(values) - min(values)),
            'starts': {name: number(value) for name, value in self.starts.items()},
        }


@checked
def greedy_worst_case(members: Mapping[str, Counts]) -> tuple[Counts, np.ndarray]:
    """Returns a choice of one member per image that makes the mIoU over the dataset low, and its counts.

    The search starts from :func:`worst_case`. It takes one image after the other, in order. For each image it chooses
    the member that gives the lowest mIoU, if this lowers the mIoU. It repeats passes until a pass changes nothing.
    The result is the dataset-level worst case of SEA's later version. Its mIoU is an upper bound of the true minimum
    and never above the mIoU of the start.

    Args:
        members: name -> counts of the same images, at least one.
    """
    _, start = worst_case(members)
    (choice,) = Swaps(members).descend(start[None])
    return take_counts(members, choice), choice


@checked
def lowest_miou(
    members: Mapping[str, Counts], random_starts: NotNegative = RANDOM_STARTS, seed: Seed = 0
) -> LowestMIoU:
    """Returns the lowest mIoU that swapping members image by image reaches from several starts, and a lower bound.

    The search from each start ends when no swap of a single image lowers the mIoU. The search from 'worst_case' ends
    with the same choice as :func:`greedy_worst_case`.

    Args:
        members: name -> counts of the same images, at least one.
        random_starts: number of starts that draw a member for each image.
        seed: seed of these draws.
    """
    _, worst = worst_case(members)
    starts = {'worst_case': worst}
    starts.update({name: np.full_like(worst, n) for n, name in enumerate(members)})
    for n in range(random_starts):
        draw = np.random.default_rng([seed, n])
        starts[f'random {n + 1}'] = draw.integers(0, len(members), len(worst))
    swaps = Swaps(members)
    ends = swaps.descend(np.stack(list(starts.values())))
    bound, at_bound = miou_bound(swaps.intersection, swaps.union, swaps.labelled)
    ends = np.concatenate([ends, swaps.descend(at_bound[None])])
    values = dict(zip([*starts, 'bound'], map(swaps.miou, ends), strict=True))
    best = min(range(len(ends)), key=lambda n: list(values.values())[n])
    counts = take_counts(members, ends[best])
    value = metrics(counts)['mIoU']
    return LowestMIoU(counts, ends[best], value, min(bound, value), values)


class Swaps:
    """The counts of all members, in a form that makes it fast to score swaps of single images.

    Args:
        members: name -> counts of the same images.

    Attributes:
        intersection: (N, M, K) int64.
        union: (N, M, K) int64.
        labelled: (K,) bool, True if some pixel of the dataset has the class as its label.
    """

    def __init__(self, members: Mapping[str, Counts]) -> None:
        parts = list(members.values())
        self.intersection = np.stack([part.intersection for part in parts], axis=1)
        self.union = np.stack([part.label + part.prediction - part.intersection for part in parts], axis=1)
        self.labelled: np.ndarray = np.asarray(parts[0].label.any(axis=0))
        # A swap changes only the classes in which the members differ, a few of each image's classes.
        differ = (self.union != self.union[:, :1]).any(axis=1) | (self.intersection != self.intersection[:, :1]).any(1)
        self.images = np.flatnonzero(differ.any(axis=1))
        self.classes = [np.flatnonzero(differ[n]) for n in self.images]
        pairs = list(zip(self.images, self.classes, strict=True))
        self.parts = [(self.intersection[n][:, classes], self.union[n][:, classes]) for n, classes in pairs]

    def totals(self, choice: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the dataset's intersections and unions under a choice of members, (K,) each."""
        images = np.arange(len(choice))
        return self.intersection[images, choice].sum(axis=0), self.union[images, choice].sum(axis=0)

    def miou(self, choice: np.ndarray) -> float:
        """Returns the mIoU of a choice of members, (N,), or nan if no pixel is valid."""
        intersection, union = self.totals(choice)
        known = union > 0
        return float((intersection[known] / union[known]).mean()) if known.any() else float('nan')

    def descend(self, choices: np.ndarray) -> np.ndarray:
        """Returns the choice at which the search from each start ends, (S, N).

        No swap of a single image lowers the mIoU of such a choice.

        Args:
            choices: (S, N) starts. The searches run side by side and do not influence each other.
        """
        choices, active = choices.copy(), np.arange(len(choices))
        while len(active):
            changed = choices[active]
            moved = self._pass(changed)
            choices[active] = changed
            active = active[moved]
        return choices

    def _pass(self, choices: np.ndarray) -> np.ndarray:
        """Goes through the images once, writes the swaps into ``choices`` (S, N), and returns which starts moved."""
        totals = [self.totals(choice) for choice in choices]
        intersection, union = (np.stack([total[part] for total in totals]) for part in (0, 1))
        iou = intersection / np.maximum(union, 1)
        score, known = iou.sum(axis=1), (union > 0).sum(axis=1)
        moved, rows = np.zeros(len(choices), dtype=bool), np.arange(len(choices))
        for image, classes, (ours_intersection, ours_union) in zip(self.images, self.classes, self.parts, strict=True):
            chosen = choices[:, image]
            others_union = union[:, classes] - ours_union[chosen]
            others_intersection = intersection[:, classes] - ours_intersection[chosen]
            unions = others_union[:, None] + ours_union  # (S, M, classes)
            ratios = (others_intersection[:, None] + ours_intersection) / np.maximum(unions, 1)
            fixed_score = score - iou[:, classes].sum(axis=1)
            fixed_known = known - (union[:, classes] > 0).sum(axis=1)
            scores = fixed_score[:, None] + ratios.sum(axis=2)
            knowns = fixed_known[:, None] + (unions > 0).sum(axis=2)
            means = scores / knowns
            best = means.argmin(axis=1)
            better = np.flatnonzero(means[rows, best] < means[rows, chosen] - GAIN)
            if not len(better):
                continue
            at, to = np.ix_(better, classes), best[better]
            intersection[at] = others_intersection[better] + ours_intersection[to]
            union[at], iou[at] = unions[better, to], ratios[better, to]
            score[better], known[better] = scores[better, to], knowns[better, to]
            choices[better, image], moved[better] = to, True
        return moved
