"""The smallest radius at which an attack breaks an image, by bisection: the criterion of figure 6 of SEA's paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmadv.attacks import Attack, derive_seed, parse_radius
from mmadv.attacks.problem import NonFinite
from mmadv.engine.attacked_group import GroupPredictor, ImageFailed, PredictedGroup
from mmadv.engine.supplements import Supplement
from mmadv.errors import UserError
from mmadv.models.adapter import SegmentorAdapter
from mmadv.report.evaluation import Evaluation, MinimalRadii, NamedRadius, PassCount, Passes
from mmadv.report.table import Table

FILE_NAME = 'minimal_radii.csv'


@dataclass
class Bracket:
    """What is known of an image's minimal radius.

    Attributes:
        high: smallest radius that broke the image; None where none did yet.
        failed: radii that did not.
        forward: forward passes of the bisection.
        backward: backward passes of it.
    """

    high: float | None = None
    failed: list[float] = field(default_factory=list)
    forward: int = 0
    backward: int = 0

    @property
    def low(self) -> float:
        """Largest radius below ``high`` that did not break the image; one above it is a failure of the attack alone."""
        return max((radius for radius in self.failed if self.high is None or radius < self.high), default=0.0)

    def take(self, radius: float, broken: bool) -> None:
        """Takes the outcome of an attack."""
        if not broken:
            self.failed.append(radius)
        elif self.high is None or radius < self.high:
            self.high = radius


class MinimalRadius(Supplement):
    """Finds, for each image, the smallest radius at which the attack makes a share of its valid pixels wrong.

    An image is broken where at least ``share`` of its valid pixels are predicted as another class than labelled. What
    the attack did at the radii of the run is the first bracket; where it broke the image at none of them, ``upper`` is
    tried; then the bracket is halved until it is at most ``tolerance`` wide. Its upper end is a radius at which the
    attack succeeded: an upper bound of the image's true minimal radius.

    Args:
        attack: run at the radii of the bisection, with the seeds of the run.
        upper: largest radius to try, as '32/255'.
        share: of the valid pixels, in (0, 1].
        tolerance: width of the last bracket, as '0.5/255'.

    Raises:
        UserError: a share, radius or tolerance that is none.
    """

    name = 'minimal_radius'

    def __init__(self, attack: Attack, *, upper: str, share: float, tolerance: str) -> None:
        self.attack = attack
        self.texts = {'upper': upper, 'tolerance': tolerance}
        self.upper = parse_radius(upper, what='--minimal-radius')
        self.tolerance = parse_radius(tolerance, what='--minimal-tolerance')
        self.share = share
        if not 0 < share <= 1:
            raise UserError(f'--minimal-share must lie in (0, 1], such as 0.99; found {share:g}')
        if not 0 < self.tolerance < self.upper:
            raise UserError(
                f'--minimal-tolerance {tolerance} must be positive and below --minimal-radius {upper}; give another'
            )
        attack.with_radius(self.upper)

    @property
    def settings(self) -> Any:
        return {'upper': self.upper, 'share': self.share, 'tolerance': self.tolerance}

    def measure(
        self, predictor: GroupPredictor, model: SegmentorAdapter, group: PredictedGroup, names: Sequence[str]
    ) -> list[Any]:
        """Returns [lower end, upper end, forward passes, backward passes] of each image; the upper end may be None.

        An image without a valid pixel has None for all.
        """
        valid = (group.labels != group.ignore_index).flatten(1).sum(1)
        brackets = [Bracket() for _ in names]
        self._take(brackets, range(len(names)), 0.0, group.clean, group)
        for radius, attacked in group.attacked.items():
            if attacked.images is not None:
                self._take(brackets, range(len(names)), parse_radius(radius), attacked.worst, group)
        left = [n for n in range(len(names)) if int(valid[n])]
        while left:
            wanted = {n: self._next(brackets[n]) for n in left}
            left = [n for n in left if wanted[n] is not None]
            # Images whose brackets are equal, as most are at first, are attacked together.
            for radius in sorted({value for value in wanted.values() if value is not None}):
                rows = [n for n in left if wanted[n] == radius]
                self._attack(predictor, model, group, names, rows, radius, brackets)
        return [
            [found.low, found.high, found.forward, found.backward] if int(pixels) else [None, None, 0, 0]
            for found, pixels in zip(brackets, valid, strict=True)
        ]

    def _next(self, bracket: Bracket) -> float | None:
        """Returns the radius to try next, None where the image is done."""
        if bracket.high is None:
            return self.upper if bracket.low < self.upper else None
        if bracket.high - bracket.low <= self.tolerance * (1 + 1e-9):
            return None
        return (bracket.low + bracket.high) / 2

    def _attack(
        self,
        predictor: GroupPredictor,
        model: SegmentorAdapter,
        group: PredictedGroup,
        names: Sequence[str],
        rows: Sequence[int],
        radius: float,
        brackets: Sequence[Bracket],
    ) -> None:
        """Attacks the images of some rows at a radius, and takes the outcomes into their brackets."""
        images = group.images[list(rows)]
        labels = group.labels[list(rows)].to(images.device)
        seeds = [derive_seed(predictor.seed, names[row]) for row in rows]
        attack = self.attack.with_radius(radius)
        try:
            result = attack(model, images, labels, seeds=seeds, ignore_index=group.ignore_index)
        except NonFinite as error:
            position = rows[error.index]
            raise ImageFailed(
                position,
                f'{error.finding} for the image {names[position]} at iteration '
                f'{error.iteration} of the bisection at radius {radius:g}; check the checkpoint and the precision',
            ) from error
        for n, row in enumerate(rows):
            brackets[row].forward += int(result.forward_passes[n])
            brackets[row].backward += int(result.backward_passes[n])
        self._take(brackets, rows, radius, result.predictions.cpu(), group)

    def _take(
        self,
        brackets: Sequence[Bracket],
        rows: Sequence[int],
        radius: float,
        predictions: Tensor,
        group: PredictedGroup,
    ) -> None:
        labels = group.labels[list(rows)]
        valid = labels != group.ignore_index
        wrong = ((predictions != labels) & valid).flatten(1).sum(1).to(torch.float64)
        broken = wrong >= self.share * valid.flatten(1).sum(1)
        for row, one in zip(rows, broken.tolist(), strict=True):
            brackets[row].take(radius, one)

    def summarise(self, evaluation: Evaluation, records: Sequence[Mapping[str, Any]]) -> MinimalRadii:
        """Returns the share of images that are not broken within each radius, and what the radii are like."""
        found = [record[self.name] for record in records if record[self.name][0] is not None]
        radii = sorted(high for _, high, _, _ in found if high is not None)
        values = np.array([np.inf if high is None else high for _, high, _, _ in found])
        middle = float(np.median(values)) if len(radii) * 2 > len(found) else None
        rounding = 1 + 1e-12
        return MinimalRadii(
            share=self.share,
            upper=NamedRadius(self.texts['upper'], self.upper),
            tolerance=NamedRadius(self.texts['tolerance'], self.tolerance),
            images=len(found),
            broken=len(radii),
            median=middle,
            not_broken={
                radius: float((values > parse_radius(radius) * rounding).mean()) for radius in evaluation.attacked
            },
            not_broken_at_upper=float((values > self.upper * rounding).mean()),
            radii=tuple(radii),
            passes=Passes(
                *(PassCount(int(passes.sum()), float(passes.mean())) for passes in np.array(found, dtype=object).T[2:])
            ),
        )

    def write(self, folder: Path, evaluation: Evaluation, records: Sequence[Mapping[str, Any]]) -> None:
        """Writes a row for each image: the bracket of its minimal radius and the passes of the bisection."""
        header = ('index', 'image', 'not broken at', 'broken at', 'forward_passes', 'backward_passes')
        rows = tuple((record['index'], record['image'], *record[self.name]) for record in records)
        Table(header, rows, text_columns=2).write_csv(folder / FILE_NAME)
