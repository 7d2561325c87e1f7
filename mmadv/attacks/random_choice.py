"""One of several attacks, drawn for each image."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mmadv.attacks.attack import Attack
from mmadv.attacks.problem import Problem
from mmadv.attacks.randomness import uniform_numbers
from mmadv.attacks.result import Found
from mmadv.attacks.threat import Threat
from mmadv.errors import UserError
from mmadv.registry import ATTACKS, build


@ATTACKS.register
@dataclass(frozen=True, kw_only=True)
class RandomChoice(Attack):
    """Runs one attack on each image, drawn from several by the image's seed.

    Training then meets a mixture of attacks, at the mean of their costs. Which one an image meets depends on its
    seed alone, not on the batch it comes in.

    Args:
        attacks: name -> attack or its config. Radii may differ, the norm may not: ``threat`` is the widest of them.
        weights: name -> chance to be drawn, in any unit; None for equal chances.
    """

    attacks: Mapping[str, Attack]
    weights: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.attacks, Mapping) or not self.attacks:
            raise UserError(f'RandomChoice: attacks must map at least one name to an attack; found {self.attacks!r}')
        attacks = {str(name): build(attack, ATTACKS) for name, attack in self.attacks.items()}
        for name, attack in attacks.items():
            if not isinstance(attack, Attack):
                raise UserError(f"RandomChoice: '{name}' must be an attack; found {attack!r}")
        object.__setattr__(self, 'attacks', attacks)
        norms = {name: type(attack.threat).__name__ for name, attack in attacks.items()}
        if len(set(norms.values())) > 1:
            raise UserError(f'RandomChoice: all attacks need threat models of one norm; found {norms}')
        if len({attack.targeted for attack in attacks.values()}) > 1:
            raise UserError('RandomChoice: attacks must be all targeted or all untargeted; found both')
        if self.weights is not None:
            object.__setattr__(self, 'weights', _checked_weights(self.weights, attacks))

    @property
    def threat(self) -> Threat:  # type: ignore[override]
        return max((attack.threat for attack in self.attacks.values()), key=lambda threat: threat.radius)

    @property
    def start_threat(self) -> Threat:
        return max((attack.start_threat for attack in self.attacks.values()), key=lambda threat: threat.radius)

    @property
    def targeted(self) -> bool:
        return next(iter(self.attacks.values())).targeted

    @property
    def is_random(self) -> bool:
        return len(self.attacks) > 1 or next(iter(self.attacks.values())).is_random

    def with_threat(self, threat: Threat) -> RandomChoice:
        """Returns the same choice with every attack under ``threat``, whatever their radii were."""
        attacks = {name: attack.with_threat(threat) for name, attack in self.attacks.items()}
        return dataclasses.replace(self, attacks=attacks)

    def with_steps(self, steps: int) -> RandomChoice:
        attacks = {name: attack.with_steps(steps) for name, attack in self.attacks.items()}
        return dataclasses.replace(self, attacks=attacks)

    def chosen(self, problem: Problem) -> Tensor:
        """Returns the position in ``attacks`` of each image's attack, (N,) int64 on the CPU."""
        weights = [1.0] * len(self.attacks) if self.weights is None else [self.weights[name] for name in self.attacks]
        bounds = torch.tensor(weights, dtype=torch.float64).cumsum(0)
        return torch.searchsorted(bounds, uniform_numbers(problem.seeds, 'attack') * bounds[-1], right=True)

    def run(self, problem: Problem, start: Tensor | None = None) -> Found:
        chosen = self.chosen(problem).to(problem.images.device)
        images = problem.images.clone()
        for position, (name, attack) in enumerate(self.attacks.items()):
            mine = chosen == position
            if not bool(mine.any()):
                continue
            part = problem.restrict(mine).reseed(name)
            begin = start if start is None else attack.start_threat.project(start[mine], part.images)
            found = attack.run(part, begin)
            problem.count_passes_of(part, mine)
            part.check_result(found.images, attack.threat, f"'{name}'")
            images[mine] = found.images
        # Not evaluated here, even where an attack did it: what an image costs must not depend on its company.
        return Found(images)


def _checked_weights(weights: Mapping[str, float], attacks: Mapping[str, Attack]) -> dict[str, float]:
    """Returns the weights as floats; raises UserError unless there is one for each attack and they make sense."""
    if not isinstance(weights, Mapping) or set(weights) != set(attacks):
        found = sorted(map(str, weights)) if isinstance(weights, Mapping) else weights
        raise UserError(f'RandomChoice: weights must name the attacks {sorted(attacks)}, each once; found {found}')
    for name, weight in weights.items():
        number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not (number and math.isfinite(weight) and weight >= 0):
            raise UserError(f"RandomChoice: the weight of '{name}' must be a number from 0 up; found {weight!r}")
    if not any(weights.values()):
        raise UserError('RandomChoice: all weights are 0, so no attack can be drawn; give one a positive weight')
    return {name: float(weight) for name, weight in weights.items()}
