"""Adversarial patches: a texture that is pasted at a random place, scale and brightness (Brown et al., 2017)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from mmadv.attacks.attack import Attack, build_parts, check_steps
from mmadv.attacks.attack_context import AttackContext
from mmadv.attacks.checks import check_range
from mmadv.attacks.objectives import JensenShannon, Objective
from mmadv.attacks.pasting import Placement, masks, paste, texture_gradient
from mmadv.attacks.randomness import derive_seed, uniform_noise, uniform_numbers
from mmadv.attacks.region import Pixels
from mmadv.attacks.result import AttackOutput
from mmadv.attacks.threat import Linf, Threat
from mmadv.attacks.trained_attack import TrainedAttack, step_share
from mmadv.errors import UserError
from mmadv.fields import PositiveNumber, Probability, Range, checked
from mmadv.registry import ATTACKS
from mmadv.shapes import FLOATS, Shaped

Texture = Annotated[Tensor, Shaped('C a b', FLOATS)]
Side = Annotated[int, Range(1, 4096)]
# A patch may have any colour.
PAINTED = Linf(radius=1)
# The first step, in units of colours in [0, 1], and the share of the last gradients in the direction of a step.
FIRST_STEP, MOMENTUM = 0.1, 0.9


@dataclass(frozen=True, kw_only=True)
class PatchAttack(Attack):
    """Base of attacks that paint a patch over a part of the image.

    A patch is a texture. Each use draws a place, a scale and a brightness: the place is uniform over all positions
    inside the image, scale and brightness are uniform between their ends. The texture is resized, multiplied by the
    brightness, and pasted. Its pixels are in no objective, so the patch can only mislead the model elsewhere.

    Training ascends the expected objective: each step draws anew for each image. The direction of a step is the sign
    of an average of gradients, each divided by its mean magnitude; 0.9 of the average stays at each step. The step
    size falls linearly from 0.1 to 0.01. The result has 256 levels, so that it can be printed. The seed of an image
    decides the draw that the result is evaluated at, which no step has seen.

    Args:
        steps: number of draws to train on.
        objective: the objective to maximise outside the patch, or its config.
        size: height and width of the texture in pixels. A patch keeps their ratio.
        scale: smallest and largest length of the patch's longer side, as shares of the image's shorter side.
        brightness: smallest and largest factor of the brightness.
        label: the attack's name in tables, see ``Attack``.

    Raises:
        UserError: the ends of a range are not in order.
    """

    steps: int = 200
    objective: Objective = JensenShannon()
    size: tuple[Side, Side] = (64, 64)
    scale: tuple[Probability, Probability] = (0.2, 0.4)
    brightness: tuple[PositiveNumber, PositiveNumber] = (0.8, 1.2)
    label: str = field(default='', compare=False)
    runs_alone: ClassVar[bool] = True

    def __post_init__(self) -> None:
        build_parts(self, objective=self.objective)
        check_steps(self, self.steps)
        for name in ('size', 'scale', 'brightness'):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ('scale', 'brightness'):
            low, high = getattr(self, name)
            if low > high:
                raise UserError(
                    f'{type(self).__name__}: {name} must give the smaller number first; found {low}, {high}'
                )

    @property
    def threat(self) -> Threat:
        return PAINTED

    @property
    def targeted(self) -> bool:
        return self.objective.targeted

    @property
    def is_random(self) -> bool:
        return True

    @checked
    def with_threat(self, threat: Threat) -> Any:
        """Returns the attack itself.

        Raises:
            UserError: the threat model is not that of a patch.
        """
        if threat.region is not None:
            raise UserError(f'{type(self).__name__} draws the place of the patch itself, so it takes no region')
        if threat != PAINTED:
            raise UserError(
                f'{type(self).__name__}: a patch may have any colour, so its threat model is Linf with radius 1; found '
                f'{type(threat).__name__} with radius {threat.radius:g}'
            )
        return self

    def budget(self, context: AttackContext) -> Threat:
        if not len(context):
            return PAINTED
        places = self.placements(context.images.shape[2:], context.seeds)
        return PAINTED.inside(Pixels(masks(context.images, places)))

    def placements(self, size: Sequence[int], seeds: Sequence[int]) -> list[Placement]:
        """Returns the draws at which the result is evaluated, one for each image of ``size`` (h, w) and its seed."""
        return self._drawn(size, [derive_seed(seed, 'evaluation') for seed in seeds])

    def _drawn(self, size: Sequence[int], seeds: Sequence[int]) -> list[Placement]:
        keys = ('scale', 'brightness', 'top', 'left')
        draws = zip(*(uniform_numbers(seeds, 'patch', key).tolist() for key in keys), strict=True)
        placements = []
        for scale, brightness, top, left in draws:
            longer = _between(self.scale, scale) * min(size)
            height, width = (max(round(longer * side / max(self.size)), 1) for side in self.size)
            place = int(top * (size[0] - height + 1)), int(left * (size[1] - width + 1))
            placements.append(Placement(*place, height, width, _between(self.brightness, brightness)))
        return placements

    def _gradients(self, context: AttackContext, textures: Tensor, step: int, progress: float) -> Tensor:
        """Returns the gradient of each image's objective outside a newly drawn patch, like ``textures``."""
        places = self._drawn(context.images.shape[2:], [derive_seed(seed, 'step', step) for seed in context.seeds])
        covered = torch.cat([one.box(context.images.shape[2:]).mask(context.labels[:1, None])[0] for one in places])
        outside = context.masked(torch.where(covered, context.ignore_index, context.labels))
        pasted = paste(context.images, textures, places)
        gradient, _ = outside.gradient(pasted, self.objective, progress)
        return texture_gradient(context.images, textures, places, gradient)

    @abstractmethod
    def textures(self, context: AttackContext) -> Tensor:
        """Returns the texture of each image, (N, C, a, b), or one for all, (1, C, a, b)."""

    def run(self, context: AttackContext, start: Tensor | None = None) -> AttackOutput:
        if start is not None:
            raise UserError(f'{type(self).__name__}: takes no start; a patch does not depend on the pixels below it')
        textures = self.textures(context).to(context.images)
        return AttackOutput(paste(context.images, textures, self.placements(context.images.shape[2:], context.seeds)))


@ATTACKS.register
@dataclass(frozen=True, kw_only=True)
class Patch(PatchAttack):
    """A patch of its own for each image. See ``PatchAttack``.

    Labels that are void at the evaluated place, as ``mmadv test`` makes them, are void in all steps.

    Args:
        steps: number of draws to train on.
    """

    steps: int = 400

    def textures(self, context: AttackContext) -> Tensor:
        textures = random_textures(context.images, self.size, context.seeds)
        velocity = torch.zeros_like(textures)
        for step in range(self.steps):
            gradient = self._gradients(context, textures, step, step / self.steps)
            textures, velocity = ascend(textures, velocity, gradient, step / self.steps)
        return printable_levels(textures)


@ATTACKS.register
@dataclass(frozen=True, kw_only=True)
class UniversalPatch(PatchAttack, TrainedAttack):
    """One patch for all images. See ``PatchAttack``; a step takes the mean gradient over a mini-batch.

    Args:
        steps: number of mini-batches to train on.
        batch_size: number of images in a mini-batch.
        training_images: number of images that ``mmadv test`` trains on, spread evenly over the training data.
    """

    steps: int = 300

    def __post_init__(self) -> None:
        super().__post_init__()
        TrainedAttack.__post_init__(self)

    @property
    def texture(self) -> Tensor | None:
        """The texture, (C, a, b) in [0, 1]; None before training. A copy with changed parameters has none."""
        return self.trained

    @checked
    def with_texture(self, texture: Texture) -> UniversalPatch:
        """Returns the attack with a texture (C, a, b), rounded to 256 levels; ``size`` becomes its size.

        Raises:
            UserError: a value is outside [0, 1].
        """
        check_range(texture, 'a texture')
        return self._with_tensor(printable_levels(texture.detach()), size=tuple(texture.shape[1:]))

    def with_trained(self, values: Tensor) -> UniversalPatch:
        return self.with_texture(values)

    def textures(self, context: AttackContext) -> Tensor:
        if self.texture is None:
            raise UserError('UniversalPatch: the patch is not trained; call its method train first, as mmadv test does')
        self._check_size(context.images, self.texture[None])
        return self.texture[None]

    def _start(self, like: Tensor, seed: int) -> Tensor:
        return random_textures(like, self.size, [seed])

    def _check_size(self, images: Tensor, values: Tensor) -> None:
        if images.shape[1] != values.shape[1]:
            raise UserError(f'a patch of {values.shape[1]} channels does not fit images of {images.shape[1]} channels')

    def _sum_of_gradients(self, context: AttackContext, values: Tensor, progress: float) -> Tensor:
        textures = values.expand(len(context), -1, -1, -1)
        # The seeds of the context are those of a step.
        return self._gradients(context, textures, 0, progress).sum(0, keepdim=True)

    def _moved(self, values: Tensor, velocity: Tensor, gradient: Tensor, step: int) -> tuple[Tensor, Tensor]:
        return ascend(values, velocity, gradient, step / self.steps)


def random_textures(images: Tensor, size: Sequence[int], seeds: Sequence[int]) -> Tensor:
    """Returns textures of ``size`` (a, b) with uniform random colours, one for each seed, (N, C, a, b)."""
    like = images.new_empty(1, images.shape[1], *size)
    return (uniform_noise(like, [derive_seed(seed, 'texture') for seed in seeds]) + 1) / 2


def ascend(textures: Tensor, velocity: Tensor, gradient: Tensor, progress: float) -> tuple[Tensor, Tensor]:
    """Returns textures (N, C, a, b) after a step of momentum and sign, and the new average of gradients.

    Args:
        textures: in [0, 1].
        velocity: average of earlier gradients.
        gradient: of the objective, with respect to the textures.
        progress: share of the steps that are done.
    """
    size = gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(torch.finfo(gradient.dtype).tiny)
    velocity = MOMENTUM * velocity + (1 - MOMENTUM) * gradient / size
    return (textures + FIRST_STEP * step_share(progress) * velocity.sign()).clamp(0, 1), velocity


def printable_levels(textures: Tensor) -> Tensor:
    """Returns textures with values that 8 bits hold."""
    return (textures * 255).round() / 255


def _between(ends: tuple[float, float], share: float) -> float:
    return ends[0] + share * (ends[1] - ends[0])
