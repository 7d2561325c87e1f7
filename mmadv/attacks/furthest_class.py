"""An attack that moves every pixel of an image towards the class that is furthest from all of its pixels."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from mmadv.attacks.attack import Wrapper
from mmadv.attacks.attack_context import AttackContext
from mmadv.attacks.result import AttackOutput
from mmadv.attacks.scheduled_pgd import ScheduledPGD
from mmadv.errors import UserError
from mmadv.registry import ATTACKS


@ATTACKS.register
@dataclass(frozen=True, kw_only=True)
class FurthestClass(Wrapper):
    """Aims an attack, in each image, at the class that is furthest from being predicted on any of its pixels.

    That class k minimises max_i (u_ik - max_j u_ij) over the valid pixels i of the clean image, with logits u. Few
    pixels reach that class. But the attack pushes all pixels in the same direction, and no pixel is done before the
    others. On the way, the pixels leave their labels. The pixels of some models, such as transformers, may change their
    classes together. On these models, this attack finds errors that objectives miss if they choose among pixels
    (docs/annealed_margin.md). The last iterate is the result.

    If the given attack is targeted already, there is no class to choose, and this attack runs the given one unchanged.

    Args:
        attack: a ScheduledPGD, or its config. If it is untargeted, n iterations cost n backward and n + 2 forward
            passes: the first forward pass finds the class, the last one scores the result.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.attack, ScheduledPGD):
            raise UserError(f'FurthestClass: attack must be a ScheduledPGD; found {self.attack!r}')

    @property
    def keeps_strongest(self) -> bool:
        return self.attack.targeted and self.attack.keeps_strongest

    def run(self, context: AttackContext, start: Tensor | None = None) -> AttackOutput:
        attack = self.attack
        assert isinstance(attack, ScheduledPGD)
        if attack.targeted:
            return attack.run(context, start)
        wanted = context.furthest_classes().view(-1, 1, 1)
        labels = torch.where(context.labels == context.ignore_index, context.labels, wanted)
        objective = dataclasses.replace(attack.objective, targeted=True)
        targeted_attack = dataclasses.replace(attack, objective=objective, keep='last')
        towards = context.relabelled(labels)
        output = targeted_attack.run(towards, start)
        context.count_passes_of(towards)
        return AttackOutput(output.images)
