"""The equidistant search for the step size of a single-step attack (Kim, Lee and Lee, 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmadv.attacks.attack import Wrapper
from mmadv.attacks.attack_context import AttackContext
from mmadv.attacks.pgd import PGD
from mmadv.attacks.result import AttackOutput
from mmadv.errors import UserError
from mmadv.fields import Positive
from mmadv.registry import ATTACKS


@ATTACKS.register
@dataclass(frozen=True, kw_only=True)
class StepSearch(Wrapper):
    """Shortens the step of a single-step attack to the smallest of c equal fractions that already fools the model.

    Kim, Lee and Lee classify images. With the full perturbation δ of the inner attack, they take the first of x,
    x + δ/c, x + 2δ/c, ..., x + δ that is classified wrongly, and x + δ if none is. In a segmentation each pixel is
    classified, and all pixels share one image. So each valid pixel j has its own smallest fraction k_j/c, and the
    result is the average of the pixels' images, as in equation 16 of Fast Newton. As δ is the same for all of them,
    this is x + δ times the mean of the fractions. A pixel that is wrong on the clean image has k_j = 0, and a pixel
    that stays right has k_j = c.

    The attack costs one gradient and at most c forward passes. An image whose pixels are all fooled takes no part in
    later passes.

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

    def run(self, context: AttackContext, start: Tensor | None = None) -> AttackOutput:
        full = self.attack.run(context, start).images
        change, right = full - context.images, context.labels != context.ignore_index
        # The sum of the fractions of all pixels; a pixel has the whole step until a smaller one fools it.
        total = context.valid_pixels.to(full.dtype)
        part, rows = context, torch.arange(len(context), device=full.device)
        for point in range(self.points):
            predictions = part.evaluate(part.images + point / self.points * change[rows]).predictions
            fooled = right[rows] & (predictions != part.labels)
            total[rows] -= (1 - point / self.points) * fooled.flatten(1).sum(1)
            right[rows] &= ~fooled
            remain = right[rows].flatten(1).any(1)
            if not bool(remain.any()):
                break
            part, rows = part.restrict(remain), rows[remain]
        share = (total / context.valid_pixels).view(-1, 1, 1, 1)
        return AttackOutput(self.threat.project(context.images + share * change, context.images))
