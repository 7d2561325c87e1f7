"""The equidistant search for the step size of a single-step attack (Kim, Lee and Lee, 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmadv.attacks.attack import Wrapper
from mmadv.attacks.attack_context import AttackContext
from mmadv.attacks.objectives import LogitMargin
from mmadv.attacks.pgd import PGD
from mmadv.attacks.result import AttackOutput
from mmadv.errors import UserError
from mmadv.fields import Positive
from mmadv.registry import ATTACKS


@ATTACKS.register
@dataclass(frozen=True, kw_only=True)
class StepSearch(Wrapper):
    """Shortens the step of a single-step attack to the smallest of c equal fractions that already fools the model.

    With the full perturbation δ of the inner attack, it is the first of x, x + δ/c, x + 2δ/c, ..., x + δ that fools the
    model, and x + δ if none does. So a fooled image stays clean (as in the authors' code).

    Kim, Lee and Lee classify images and check the predicted class. In a segmentation an image has many classes. This
    attack calls an image fooled if its mean gain ḡ is at most 0. This is equation 17 of Fast Newton, which estimates
    the same step size from the gradient, without a search. ḡ is the mean of u_y - max_{i≠y} u_i over the valid pixels.

    The attack costs one gradient and at most c forward passes. An image that is fooled takes no part in later passes.

    Args:
        attack: the single-step attack of the full step, such as FGSM, or PGD of one step with a random start; or its
            config.
        points: c, the number of fractions; the authors take 3.
    """

    points: Positive = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.attack, PGD) or self.attack.steps != 1 or self.attack.keep != 'last':
            raise UserError(f"StepSearch: attack must be FGSM or PGD of one step, keep='last'; found {self.attack!r}")
        if self.attack.targeted:
            raise UserError('StepSearch searches for wrong predictions, so its attack must be untargeted')
        if isinstance(self.points, bool) or not isinstance(self.points, int) or self.points < 1:
            raise UserError(f'StepSearch: points must be a positive integer; found {self.points!r}')

    def run(self, context: AttackContext, start: Tensor | None = None) -> AttackOutput:
        full = self.attack.run(context, start).images
        result, change = full.clone(), full - context.images
        part, rows = context, torch.arange(len(context), device=full.device)
        for point in range(self.points):
            candidates = part.images + point / self.points * change[rows]
            margin = part.evaluate(candidates, LogitMargin()).loss
            assert margin is not None
            fooled = margin >= 0
            result[rows[fooled]] = candidates[fooled]
            if bool(fooled.all()):
                break
            part, rows = part.restrict(~fooled), rows[~fooled]
        return AttackOutput(self.threat.project(result, context.images))
