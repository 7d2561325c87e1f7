"""Projected gradient descent on the pixels of an image: what all synthesis is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mmadv.attacks import L2, Linf, Threat, parse_radius
from mmadv.attacks.attack import frozen
from mmadv.errors import UserError

Watcher = Callable[[int, Tensor, Tensor], None]


@dataclass(frozen=True, kw_only=True)
class Descent:
    """Steps of a fixed length against the gradient, projected on [0, 1] and, if given, on a ball around the start.

    Args:
        steps: how many.
        step_size: length of a step, in the threat's norm.
        threat: the ball and its norm; None is the L2 norm without a ball.

    Raises:
        UserError: numbers that are not positive.
    """

    steps: int = 100
    step_size: str | float = 0.5
    threat: Threat | None = None

    def __post_init__(self) -> None:
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise UserError(f'steps must be a positive integer; found {self.steps!r}')
        step_size = parse_radius(self.step_size, what='step_size')
        if step_size == 0:
            raise UserError('step_size 0 moves nothing; give a positive one')
        object.__setattr__(self, 'step_size', step_size)

    def __call__(
        self,
        model: Callable[[Tensor], Tensor],
        loss: Callable[[Tensor, Tensor], Tensor],
        start: Tensor,
        *,
        centre: Tensor | None = None,
        watch: Watcher | None = None,
    ) -> Tensor:
        """Returns the images after the last step, (N, C, h, w) in [0, 1].

        Args:
            model: images -> logits; frozen and in eval mode for the while if it is a module.
            loss: (images, logits) -> (N,) what is minimised, each image by itself.
            start: (N, C, h, w) in [0, 1].
            centre: of the ball; the start by default.
            watch: called with the step, the images and their losses (N,) before every step.

        Raises:
            UserError: a loss that is not finite.
        """
        centre = start if centre is None else centre
        # Without a ball: one that holds all of [0, 1] from any of its points.
        threat = self.threat or L2(radius=math.sqrt(start[0].numel()))
        images = threat.project(start, centre)
        with frozen(model), torch.enable_grad():
            for step in range(self.steps):
                images = images.detach().requires_grad_()
                losses = loss(images, model(images))
                if not bool(torch.isfinite(losses).all()):
                    raise UserError(f'the loss is not finite at step {step}; check the checkpoint')
                if watch is not None:
                    watch(step, images.detach(), losses.detach())
                (gradient,) = torch.autograd.grad(losses.sum(), images)
                images = threat.project(threat.step(images.detach(), -gradient, float(self.step_size)), centre)
        return images.detach()


def ball(norm: str, radius: str | float) -> Threat:
    """Returns the ball of a norm, 'L2' or 'Linf'."""
    kinds: dict[str, type[Threat]] = {'L2': L2, 'Linf': Linf}
    if norm not in kinds:
        raise UserError(f"unknown norm '{norm}'; known are L2, Linf")
    return kinds[norm](radius=radius)  # type: ignore[arg-type]
