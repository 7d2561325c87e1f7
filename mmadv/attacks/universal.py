"""Universal perturbations: one perturbation for all images, trained on some images and added to others."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from mmadv.attacks.attack import build_parts
from mmadv.attacks.attack_context import AttackContext
from mmadv.attacks.checks import check_range, checked_step_size
from mmadv.attacks.randomness import derive_seed, uniform_noise
from mmadv.attacks.result import AttackOutput
from mmadv.attacks.steps import scaled_step_size, warn_of_short_steps
from mmadv.attacks.threat import Threat
from mmadv.attacks.trained_attack import TrainedAttack, step_share
from mmadv.errors import UserError
from mmadv.fields import checked
from mmadv.registry import ATTACKS
from mmadv.shapes import FLOATS, Shaped

# A perturbation that is added to an image.
Change = Annotated[Tensor, Shaped('C h w', FLOATS)]


@ATTACKS.register
@dataclass(frozen=True, kw_only=True)
class Universal(TrainedAttack):
    """One perturbation for all images of a size (Moosavi-Dezfooli et al., 2017), by mini-batch ascent of an objective.

    ``train`` starts from random noise within the budget. A step takes the gradient of each image's mean objective and
    the mean of these gradients over a mini-batch. It moves the perturbation along the threat's steepest ascent and
    projects it on the ball. Step sizes fall linearly to a tenth. A call of the attack adds the perturbation and clips
    to [0, 1], without a gradient.

    Args:
        threat: the budget, or its config.
        steps: number of mini-batches to train on.
        step_size: size of the first step, in the threat's norm; by default radius / 5.
        objective: the objective to maximise, or its config.
        batch_size: number of images in a mini-batch.
        training_images: number of images that ``mmadv test`` trains on, spread evenly over the training data.
    """

    threat: Threat
    step_size: str | float | None = None

    def __post_init__(self) -> None:
        build_parts(self, threat=self.threat)
        super().__post_init__()
        if self.step_size is not None:
            object.__setattr__(self, 'step_size', checked_step_size(self.step_size, self.threat, 'Universal'))
            warn_of_short_steps(self.reach(), self.threat, 'Universal')

    @property
    def is_random(self) -> bool:
        return False

    @property
    def perturbation(self) -> Tensor | None:
        """The perturbation, (C, h, w); None before training. A copy with changed parameters has no perturbation."""
        return self.trained

    @checked
    def with_threat(self, threat: Threat) -> Universal:
        """Returns the same attack under another threat model; a given step size stays the same share of the radius."""
        step_size = scaled_step_size(self.step_size, self.threat, threat, 'Universal')
        return dataclasses.replace(self, threat=threat, step_size=step_size)

    @checked
    def with_perturbation(self, perturbation: Change) -> Universal:
        """Returns the attack with a perturbation (C, h, w), projected on the attack's budget.

        Raises:
            UserError: a value is outside [-1, 1], the range of a change of images in [0, 1].
        """
        check_range(perturbation.abs(), 'the magnitudes of a universal perturbation')
        return self._with_tensor(self._in_ball(perturbation.detach()[None])[0])

    def with_trained(self, values: Tensor) -> Universal:
        return self.with_perturbation(values)

    def run(self, context: AttackContext, start: Tensor | None = None) -> AttackOutput:
        if start is not None:
            raise UserError('Universal: takes no start; its perturbation is the same for all images')
        if self.perturbation is None:
            raise UserError(
                'Universal: the perturbation is not trained; call its method train first, as mmadv test does'
            )
        self._check_size(context.images, self.perturbation[None])
        return AttackOutput(self.threat.project(context.images + self.perturbation.to(context.images), context.images))

    def resolved_step_size(self) -> float:
        """Returns the size of the first step that the attack uses: the given one or the default."""
        return float(self.step_size) if self.step_size is not None else self.threat.radius / 5

    @property
    def random_start(self) -> bool:
        """Whether the perturbation starts from a random point of the ball."""
        return True

    def reach(self) -> float:
        """Returns the total length of all steps, in the threat's norm."""
        return self.resolved_step_size() * sum(step_share(step / self.steps) for step in range(self.steps))

    def _sum_of_gradients(self, context: AttackContext, values: Tensor, progress: float) -> Tensor:
        moved = context.images + values
        gradient, _ = context.gradient(moved.clamp(0, 1), self.objective, progress)
        # Values whose sum leaves [0, 1] are clipped, so a change of the perturbation has no effect there.
        return torch.where((moved >= 0) & (moved <= 1), gradient, 0).sum(0, keepdim=True)

    def _moved(self, values: Tensor, velocity: Tensor, gradient: Tensor, step: int) -> tuple[Tensor, Tensor]:
        size = self.resolved_step_size() * step_share(step / self.steps)
        return self._in_ball(self.threat.step(values, gradient, size)), velocity

    def _start(self, like: Tensor, seed: int) -> Tensor:
        noise = uniform_noise(like.detach(), [derive_seed(seed, 'universal')])
        return self._in_ball(self.threat.radius * noise)

    def _check_size(self, images: Tensor, values: Tensor) -> None:
        if images.shape[1:] != values.shape[1:]:
            size, expected = ('x'.join(map(str, tensor.shape[1:])) for tensor in (images, values))
            raise UserError(
                f'a universal perturbation needs images of one size; it is {expected}, an image is {size} (channels, '
                'height, width); resize or crop all images to one size in the test pipeline'
            )

    def _in_ball(self, perturbation: Tensor) -> Tensor:
        """Returns the perturbation (1, C, h, w) projected on the ball around zero.

        A threat projects on the ball around an image and on [0, 1]. This method scales the problem around mid-grey, so
        that [0, 1] sets no bound and only the ball does.
        """
        scale = 0.5 / max(1.0, float(perturbation.abs().max()))
        centre = torch.full_like(perturbation, 0.5)
        return (self.threat.scaled(scale).project(centre + scale * perturbation, centre) - centre) / scale
