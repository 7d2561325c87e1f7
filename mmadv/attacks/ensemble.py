"""The worst case per image over named attacks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mmadv.attacks.attack import Attack
from mmadv.attacks.problem import Problem
from mmadv.attacks.restarts import evaluated
from mmadv.attacks.result import AttackResult, Found
from mmadv.attacks.threat import Threat
from mmadv.errors import UserError
from mmadv.registry import ATTACKS, build


@ATTACKS.register
@dataclass(frozen=True, kw_only=True)
class WorstCase(Attack):
    """Runs every attack on every image; keeps per image the result of lowest accuracy (ties: the first attack).

    The result's ``members`` hold each attack's own result by name.

    Args:
        attacks: name -> attack or its config, all under the same threat model.
    """

    attacks: Mapping[str, Attack]

    def __post_init__(self) -> None:
        if not isinstance(self.attacks, Mapping) or not self.attacks:
            raise UserError(f'WorstCase: attacks must map at least one name to an attack; found {self.attacks!r}')
        attacks = {str(name): build(attack, ATTACKS) for name, attack in self.attacks.items()}
        for name, attack in attacks.items():
            if not isinstance(attack, Attack):
                raise UserError(f"WorstCase: '{name}' must be an attack; found {attack!r}")
        object.__setattr__(self, 'attacks', attacks)
        if any(attack.threat != self.threat for attack in attacks.values()):
            threats = {name: attack.threat for name, attack in attacks.items()}
            raise UserError(f'WorstCase: all attacks need the same threat model; found {threats}')
        if len({attack.targeted for attack in attacks.values()}) > 1:
            raise UserError('WorstCase: attacks must be all targeted or all untargeted; found both')

    @property
    def threat(self) -> Threat:  # type: ignore[override]
        return next(iter(self.attacks.values())).threat

    @property
    def targeted(self) -> bool:
        return next(iter(self.attacks.values())).targeted

    @property
    def is_random(self) -> bool:
        return any(attack.is_random for attack in self.attacks.values())

    def with_threat(self, threat: Threat) -> WorstCase:
        attacks = {name: attack.with_threat(threat) for name, attack in self.attacks.items()}
        return dataclasses.replace(self, attacks=attacks)

    def with_steps(self, steps: int) -> WorstCase:
        attacks = {name: attack.with_steps(steps) for name, attack in self.attacks.items()}
        return dataclasses.replace(self, attacks=attacks)

    def run(self, problem: Problem, start: Tensor | None = None) -> Found:
        members: dict[str, AttackResult] = {}
        for name, attack in self.attacks.items():
            part = problem.reseed(name)
            found = attack.run(part, start)
            evaluation = evaluated(found, part)
            problem.count_passes_of(part)
            members[name] = AttackResult(
                found.images,
                evaluation.predictions,
                evaluation.correct.double() / problem.valid_pixels,
                part.forward_passes,
                part.backward_passes,
                found.members,
            )
        results = list(members.values())
        accuracy = torch.stack([result.accuracy for result in results])
        choice = accuracy.argmax(0) if self.targeted else accuracy.argmin(0)
        rows = torch.arange(len(problem), device=choice.device)
        images = torch.stack([result.images for result in results])[choice, rows]
        predictions = torch.stack([result.predictions for result in results])[choice, rows]
        correct = (predictions == problem.labels) & (problem.labels != problem.ignore_index)
        return Found(images, correct.flatten(1).sum(1), predictions, members)
