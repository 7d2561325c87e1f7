"""Attacks that use no gradient: Square, which uses only scores, and random noise as the baseline."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mmadv.attacks.attack import Attack, build_parts, check_steps
from mmadv.attacks.attack_context import AttackContext, Best
from mmadv.attacks.gaussian_noise import Noise
from mmadv.attacks.objectives import JensenShannon, Objective
from mmadv.attacks.randomness import derive_seed
from mmadv.attacks.result import AttackOutput
from mmadv.attacks.threat import Linf, Threat
from mmadv.errors import UserError
from mmadv.registry import ATTACKS

# Shares of the iterations after which the area of the squares halves, from the paper's schedule for 10 000 queries.
HALVINGS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)


@ATTACKS.register
@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Square attack (Andriushchenko et al., 2020, algorithms 1 and 2) under Linf. It queries scores, not gradients.

    The attack starts from vertical stripes of ±radius. Each iteration sets a random square of each channel to ±radius.
    The attack keeps the square if the objective's mean over the valid pixels does not fall. It returns the strongest
    image that it has seen.

    Args:
        threat: a Linf budget, or its config.
        steps: iterations, one forward pass each; one more forward pass scores the stripes.
        objective: the objective to maximise, or its config. The default, the Jensen-Shannon divergence, is bounded at
            every pixel, so pixels that are wrong already do not outweigh pixels that are still right.
        share: share of the image's area that the first squares cover. In a region, it is a share of the smallest
            rectangle that holds the region, and the squares lie in this rectangle.
    """

    threat: Threat
    steps: int = 1000
    objective: Objective = JensenShannon()
    share: float = 0.8

    def __post_init__(self) -> None:
        build_parts(self, threat=self.threat, objective=self.objective)
        check_steps(self, self.steps)
        if not isinstance(self.threat, Linf):
            raise UserError(f'Square takes a Linf threat; found {self.threat}')
        if not 0 < self.share <= 1:
            raise UserError(f'Square: share must lie in (0, 1]; found {self.share}')

    @property
    def targeted(self) -> bool:
        return self.objective.targeted

    @property
    def is_random(self) -> bool:
        return True

    @property
    def keeps_strongest(self) -> bool:
        return True

    def run(self, context: AttackContext, start: Tensor | None = None) -> AttackOutput:
        best = Best(context, targeted=self.targeted)
        rows = torch.arange(len(context), device=context.images.device)
        draws = [torch.Generator().manual_seed(derive_seed(seed, 'square')) for seed in context.seeds]
        iterate = self._stripes(context.images, draws) if start is None else start
        evaluation = context.evaluate(iterate, self.objective)
        best.update(rows, iterate, evaluation)
        assert evaluation.loss is not None
        loss = evaluation.loss
        bounds = self._bounds(context.images)
        for step in range(self.steps):
            candidate = self._with_square(iterate, context.images, step, draws, bounds)
            evaluation = context.evaluate(candidate, self.objective)
            best.update(rows, candidate, evaluation)
            assert evaluation.loss is not None
            accepted = evaluation.loss >= loss
            iterate = torch.where(accepted.view(-1, 1, 1, 1), candidate, iterate)
            loss = torch.where(accepted, evaluation.loss, loss)
        return best.output()

    def _side(self, step: int, size: tuple[int, ...]) -> int:
        halvings = sum(step / self.steps > share for share in HALVINGS)
        side = round(math.sqrt(self.share / 2**halvings * size[0] * size[1]))
        return max(1, min(side, *size))

    def _stripes(self, images: Tensor, draws: list[torch.Generator]) -> Tensor:
        channels, width = images.shape[1], images.shape[3]
        signs = torch.stack([_signs((channels, 1, width), draw) for draw in draws]).to(images)
        return self.threat.project(images + self.threat.radius * signs, images)

    def _bounds(self, images: Tensor) -> list[tuple[int, int, int, int]]:
        """Returns (top, left, height, width) of the smallest rectangle that holds the region, for each image."""
        whole = (0, 0, *images.shape[2:])
        if self.threat.region is None:
            return [whole] * len(images)
        bounds = []
        for mask in self.threat.region.mask(images).expand(len(images), -1, -1, -1)[:, 0]:
            rows, columns = (mask.any(axis).nonzero().squeeze(1).tolist() for axis in (1, 0))
            sides = (rows[0], columns[0], rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1) if rows else whole
            bounds.append(sides)
        return bounds

    def _with_square(
        self,
        iterate: Tensor,
        images: Tensor,
        step: int,
        draws: list[torch.Generator],
        bounds: list[tuple[int, int, int, int]],
    ) -> Tensor:
        candidate = iterate.clone()
        for n, (draw, (first_row, first_column, height, width)) in enumerate(zip(draws, bounds, strict=True)):
            side = self._side(step, (height, width))
            top = first_row + int(torch.randint(height - side + 1, (), generator=draw))
            left = first_column + int(torch.randint(width - side + 1, (), generator=draw))
            signs = _signs((images.shape[1], 1, 1), draw).to(images)
            place = (n, slice(None), slice(top, top + side), slice(left, left + side))
            candidate[place] = images[place] + self.threat.radius * signs
        return self.threat.project(candidate, images)


@ATTACKS.register
@dataclass(frozen=True, kw_only=True)
class RandomNoise(Noise):
    """The strongest of several random images of the budget, a baseline that every attack should beat.

    Args:
        threat: the budget, or its config.
        steps: number of random images, one forward pass each.
    """

    threat: Threat
    steps: int = 10

    def __post_init__(self) -> None:
        build_parts(self, threat=self.threat)
        check_steps(self, self.steps)

    @property
    def keeps_strongest(self) -> bool:
        return True

    def run(self, context: AttackContext, start: Tensor | None = None) -> AttackOutput:
        best = Best(context, targeted=False)
        rows = torch.arange(len(context), device=context.images.device)
        for draw in range(self.steps):
            seeds = [derive_seed(seed, 'noise', draw) for seed in context.seeds]
            noisy = self.threat.random_start(context.images, seeds)
            best.update(rows, noisy, context.evaluate(noisy))
        return best.output()


def _signs(shape: tuple[int, ...], draw: torch.Generator) -> Tensor:
    return torch.randint(2, shape, generator=draw, dtype=torch.int8) * 2 - 1
