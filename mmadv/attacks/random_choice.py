"""One of several attacks, drawn for each image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mmadv.attacks.attack import Attack
from mmadv.attacks.attack_context import AttackContext
from mmadv.attacks.group import AttackGroup
from mmadv.attacks.randomness import uniform_numbers
from mmadv.attacks.result import AttackOutput
from mmadv.attacks.threat import Threat
from mmadv.errors import UserError
from mmadv.registry import ATTACKS


@ATTACKS.register
@dataclass(frozen=True, kw_only=True)
class RandomChoice(AttackGroup):
    """Runs one attack on each image. The image's seed draws it from several attacks.

    In training, the model sees a mixture of attacks, at the mean of their costs. The choice for an image depends only
    on its seed, not on its batch.

    Args:
        attacks: name -> attack or its config. The radii may differ, the norm may not. ``threat`` has the largest
            radius.
        weights: name -> relative chance of the attack; None for equal chances.
    """

    weights: Mapping[str, float] | None = None

    shares_threat = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights is not None:
            object.__setattr__(self, 'weights', _checked_weights(self.weights, self.attacks))

    @property
    def threat(self) -> Threat:
        return max((attack.threat for attack in self.attacks.values()), key=lambda threat: threat.radius)

    @property
    def start_threat(self) -> Threat:
        return max((attack.start_threat for attack in self.attacks.values()), key=lambda threat: threat.radius)

    @property
    def is_random(self) -> bool:
        return len(self.attacks) > 1 or self.first.is_random

    def chosen(self, context: AttackContext) -> Tensor:
        """Returns the position in ``attacks`` of each image's attack, (N,) int64 on the CPU."""
        weights = [1.0] * len(self.attacks) if self.weights is None else [self.weights[name] for name in self.attacks]
        bounds = torch.tensor(weights, dtype=torch.float64).cumsum(0)
        return torch.searchsorted(bounds, uniform_numbers(context.seeds, 'attack') * bounds[-1], right=True)

    def run(self, context: AttackContext, start: Tensor | None = None) -> AttackOutput:
        chosen = self.chosen(context).to(context.images.device)
        images = context.images.clone()
        for position, (name, attack) in enumerate(self.attacks.items()):
            mine = chosen == position
            if not bool(mine.any()):
                continue
            part = context.restrict(mine).reseed(name)
            begin = start if start is None else attack.start_threat.project(start[mine], part.images)
            output = attack.run(part, begin)
            context.count_passes_of(part, mine)
            part.check_result(output.images, attack.threat, f"'{name}'")
            images[mine] = output.images
        # An attack's own evaluation is not passed on: an image's cost must not depend on the other images of the batch.
        return AttackOutput(images)


def _checked_weights(weights: Mapping[str, float], attacks: Mapping[str, Attack]) -> dict[str, float]:
    """Returns the weights as floats, or raises UserError if they are invalid or do not name each attack once."""
    if not isinstance(weights, Mapping) or set(weights) != set(attacks):
        names = sorted(map(str, weights)) if isinstance(weights, Mapping) else weights
        raise UserError(f'RandomChoice: weights must name the attacks {sorted(attacks)}, each once; found {names}')
    for name, weight in weights.items():
        number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not (number and math.isfinite(weight) and weight >= 0):
            raise UserError(f"RandomChoice: the weight of '{name}' must be a number from 0 up; found {weight!r}")
    if not any(weights.values()):
        raise UserError('RandomChoice: all weights are 0, so no attack can be drawn; give one a positive weight')
    return {name: float(weight) for name, weight in weights.items()}
