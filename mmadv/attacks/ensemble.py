"""The worst case per image over named attacks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmadv.attacks.group import AttackGroup
from mmadv.attacks.problem import Problem
from mmadv.attacks.restarts import evaluated
from mmadv.attacks.result import AttackResult, Found
from mmadv.registry import ATTACKS


@ATTACKS.register
@dataclass(frozen=True, kw_only=True)
class WorstCase(AttackGroup):
    """Runs every attack on every image; keeps per image the result of lowest accuracy (ties: the first attack).

    The result's ``members`` hold each attack's own result by name.

    Args:
        attacks: name -> attack or its config, all under the same threat model.
    """

    @property
    def title(self) -> str:
        return super().title if self.label else f'worst case of {len(self.attacks)} attacks'

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
