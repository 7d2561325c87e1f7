"""Fast Newton (Wiens and Hammer, 2022): one gradient, and one step of the estimated distance to the boundary."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from mmadv.attacks.attack import Attack
from mmadv.attacks.attack_context import AttackContext
from mmadv.attacks.objectives import LogitMargin
from mmadv.attacks.region import Region, build_region
from mmadv.attacks.result import AttackOutput
from mmadv.attacks.threat import Linf, Threat
from mmadv.errors import UserError
from mmadv.fields import Positive, checked
from mmadv.registry import ATTACKS


@ATTACKS.register
@dataclass(frozen=True, kw_only=True)
class FastNewton(Attack):
    """The step x - ε sign(∇ḡ) with ε = ḡ / |∇ḡ|_1, for each image by itself (equations 17 to 19).

    ḡ is the mean over the valid pixels of the gain u_y - max_{i≠y} u_i. The step leads to the point at which the linear
    approximation of ḡ is zero, so there is no radius or step size to choose. The equations leave two cases open:

    - ḡ ≤ 0: the image is fooled on average already, and Newton's step would make it easier. The image stays clean.
    - ∇ḡ = 0: the step is not defined. The image stays clean.

    A small gradient gives a long step. The attack clips the image to [0, 1], and ε to ``max_radius`` if it is given.

    Args:
        max_radius: upper bound of ε, written like a radius; None, as in the paper, for no bound.
        region: the pixels that may change, or the config of a region; None for all.
    """

    max_radius: str | float | None = None
    region: Region | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, 'region', build_region(self.region, type(self).__name__))
        if self.max_radius is not None:
            # Linf parses a radius that is text.
            object.__setattr__(self, 'max_radius', Linf(radius=self.max_radius).radius)  # type: ignore[arg-type]

    @property
    def threat(self) -> Threat:
        """The upper bound of ε; without one, the whole range of images."""
        return Linf(radius=1.0 if self.max_radius is None else float(self.max_radius), region=self.region)

    @property
    def targeted(self) -> bool:
        return False

    @property
    def is_random(self) -> bool:
        return False

    @checked
    def with_threat(self, threat: Threat) -> FastNewton:
        """Returns the attack with its step bounded by a Linf radius."""
        if not isinstance(threat, Linf):
            raise UserError(f'FastNewton steps by the sign of the gradient and needs a Linf threat; found {threat}')
        return dataclasses.replace(self, max_radius=threat.radius, region=threat.region)

    @checked
    def with_steps(self, steps: Positive) -> FastNewton:
        """Raises UserError unless ``steps`` is 1."""
        if steps != 1:
            raise UserError(f'FastNewton takes one step; found steps={steps}')
        return self

    def run(self, context: AttackContext, start: Tensor | None = None) -> AttackOutput:
        centre = context.images if start is None else start
        return AttackOutput(self.threat.project(centre + self._step(context, centre), context.images))

    def _step(self, context: AttackContext, centre: Tensor) -> Tensor:
        """Returns the step of each image, (N, C, h, w), for the mean gain over the valid pixels of the context."""
        evaluation = context.evaluate(centre, LogitMargin(), gradient=True)
        assert evaluation.loss is not None and evaluation.gradient is not None
        gain, gradient = -evaluation.loss, self.threat.inner(evaluation.gradient)
        length = gradient.abs().flatten(1).sum(1)
        defined = (gain > 0) & (length > 0)
        step_size = torch.where(defined, gain / torch.where(defined, length, 1), 0)
        if self.max_radius is not None:
            step_size = step_size.clamp_max(float(self.max_radius))
        return step_size.view(-1, 1, 1, 1) * gradient.sign()


@ATTACKS.register
@dataclass(frozen=True, kw_only=True)
class PixelwiseFastNewton(FastNewton):
    """The average of the adversarial images of all pixels (equation 16), which Fast Newton replaces by one step.

    Each valid pixel j has its own image x - ε_j sign(∇g_j), with ε_j = g_j / |∇g_j|_1 and its own gain g_j. The attack
    clips it as Fast Newton does, and averages over j. Where g_j ≤ 0 or ∇g_j = 0, the image of pixel j is x.

    The authors call it too expensive: an image takes as many gradients as it has valid pixels. It is for small images,
    to show what Fast Newton approximates.

    Args:
        max_radius: upper bound of each ε_j, written like a radius; None for no bound.
        region: the pixels that may change, or the config of a region; None for all.
    """

    def run(self, context: AttackContext, start: Tensor | None = None) -> AttackOutput:
        centre = context.images if start is None else start
        total = torch.zeros_like(centre)
        void = torch.full_like(context.labels, context.ignore_index)
        for row, column in itertools.product(*map(range, context.labels.shape[1:])):
            valid = context.labels[:, row, column] != context.ignore_index
            if not bool(valid.any()):
                continue
            labels = void.clone()
            labels[:, row, column] = context.labels[:, row, column]
            part = context.restrict(valid)
            pixel = part.relabelled(labels[valid])
            moved = self.threat.project(centre[valid] + self._step(pixel, centre[valid]), part.images)
            total[valid] += moved - centre[valid]
            part.count_passes_of(pixel)
        average = centre + total / context.valid_pixels.view(-1, 1, 1, 1)
        return AttackOutput(self.threat.project(average, context.images))
