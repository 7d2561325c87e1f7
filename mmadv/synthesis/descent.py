"""Projected gradient descent on the pixels of an image, which all synthesis uses."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mmadv.attacks import L2, Linf, Threat
from mmadv.attacks.checks import Images, check_radius, checked_step_size, warn_of_probabilities
from mmadv.attacks.freezing import frozen
from mmadv.attacks.steps import warn_of_short_steps
from mmadv.errors import UserError
from mmadv.fields import Positive, Radius, WrittenRadius, checked, checked_exactly

StepCallback = Callable[[int, Tensor, Tensor], None]


@checked_exactly
@dataclass(frozen=True, kw_only=True)
class Descent:
    """Steps of a fixed length against the gradient, projected on [0, 1] and, if given, on a ball around the start.

    Args:
        steps: number of steps.
        step_size: length of a step, in the threat's norm.
        threat: the ball and its norm. None uses the L2 norm without a ball.

    Raises:
        UserError: a number is not positive.
    """

    steps: Positive = 100
    step_size: Radius = 0.5
    threat: Threat | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, 'step_size', checked_step_size(self.step_size, self.threat, 'Descent'))
        if self.threat is not None:
            warn_of_short_steps(self.steps * float(self.step_size), self.threat, 'Descent')

    @checked
    def __call__(
        self,
        model: Callable[[Tensor], Tensor],
        loss: Callable[[Tensor, Tensor], Tensor],
        start: Images,
        *,
        centre: Images | None = None,
        callback: StepCallback | None = None,
    ) -> Tensor:
        """Returns the images after the last step, (N, C, h, w) in [0, 1].

        Args:
            model: images -> logits. A module is frozen and in eval mode during the call.
            loss: (images, logits) -> (N,) the loss to minimise, separately for each image.
            start: (N, C, h, w) in [0, 1].
            centre: (N, C, h, w) in [0, 1], the centre of the ball; the start by default.
            callback: function called before every step, with the step's number, the images and their losses (N,).

        Raises:
            UserError: images are not in [0, 1], or a loss or gradient is not finite.
        """
        start = start.detach()
        centre = start if centre is None else centre.detach()
        # Without a given ball, take one that contains all images in [0, 1], whatever its centre.
        threat = self.threat or L2(radius=math.sqrt(start[0].numel()))
        check_radius(threat, start)
        images = threat.project(start, centre)
        with frozen(model), torch.enable_grad():
            for step in range(self.steps):
                images = images.detach().requires_grad_()
                logits = model(images)
                if step == 0:
                    warn_of_probabilities(logits)
                losses = loss(images, logits)
                (gradient,) = torch.autograd.grad(losses.sum(), images)
                finite = torch.stack([torch.isfinite(losses).all(), torch.isfinite(gradient).all()]).tolist()
                for what, fine in zip(('loss', 'gradient'), finite, strict=True):
                    if not fine:
                        raise UserError(f'the {what} is not finite at step {step}; check the checkpoint')
                if callback is not None:
                    callback(step, images.detach(), losses.detach())
                images = threat.project(threat.step(images.detach(), -gradient, float(self.step_size)), centre)
        return images.detach()


@checked
def ball(norm: str, radius: WrittenRadius) -> Threat:
    """Returns the ball of a norm, 'L2' or 'Linf'."""
    kinds: dict[str, type[Threat]] = {'L2': L2, 'Linf': Linf}
    if norm not in kinds:
        raise UserError(f"unknown norm '{norm}'; known are L2, Linf")
    return kinds[norm](radius=radius)  # type: ignore[arg-type]  # the field parses text
