"""The worst case per image over named attacks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmadv.attacks.attack_context import AttackContext
from mmadv.attacks.group import AttackGroup
from mmadv.attacks.restarts import evaluated
from mmadv.attacks.result import AttackOutput, AttackResult
from mmadv.registry import ATTACKS


@ATTACKS.register
@dataclass(frozen=True, kw_only=True)
class WorstCase(AttackGroup):
    """Runs every attack on every image; keeps per image the result of lowest accuracy (ties: the first attack).

    The ``members`` of the result hold each attack's own result by name.

    Args:
        attacks: name -> attack or its config, all under the same threat model.
    """

    @property
    def title(self) -> str:
        return super().title if self.label else f'worst case of {len(self.attacks)} attacks'

    @property
    def keeps_strongest(self) -> bool:
        return True

    def run(self, context: AttackContext, start: Tensor | None = None) -> AttackOutput:
        members: dict[str, AttackResult] = {}
        for name, attack in self.attacks.items():
            part = context.reseed(name)
            output = attack.run(part, start)
            evaluation = evaluated(output, part)
            context.count_passes_of(part)
            members[name] = AttackResult(
                output.images,
                evaluation.predictions,
                evaluation.correct.double() / context.valid_pixels,
                part.forward_passes,
                part.backward_passes,
                output.members,
            )
        results = list(members.values())
        accuracy = torch.stack([result.accuracy for result in results])
        choice = accuracy.argmax(0) if self.targeted else accuracy.argmin(0)
        rows = torch.arange(len(context), device=choice.device)
        images = torch.stack([result.images for result in results])[choice, rows]
        predictions = torch.stack([result.predictions for result in results])[choice, rows]
        correct = (predictions == context.labels) & (context.labels != context.ignore_index)
        return AttackOutput(images, correct.flatten(1).sum(1), predictions, members)
