"""Universal perturbations: one perturbation for all images, trained on some images and added to others."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from mmadv.attacks.attack import Attack, build_parts, check_steps
from mmadv.attacks.attack_context import AttackContext, Model
from mmadv.attacks.checks import Images, Labels, check_range, checked_step_size
from mmadv.attacks.freezing import frozen
from mmadv.attacks.objectives import CrossEntropy, Objective
from mmadv.attacks.randomness import derive_seed, uniform_noise
from mmadv.attacks.result import AttackOutput
from mmadv.attacks.steps import scaled_step_size, warn_of_short_steps
from mmadv.attacks.threat import Threat
from mmadv.errors import UserError
from mmadv.fields import IgnoreIndex, Seed, check, checked
from mmadv.registry import ATTACKS
from mmadv.shapes import FLOATS, Shaped

# A perturbation that is added to an image.
Change = Annotated[Tensor, Shaped('C h w', FLOATS)]


class TrainingBatch(NamedTuple):
    """Images with their labels, and the model that returns logits of the labels' size.

    Attributes:
        model: images -> logits (n, K, H, W).
        images: (n, C, h, w) in [0, 1].
        labels: (n, H, W) int64.
    """

    model: Model
    images: Tensor
    labels: Tensor


@ATTACKS.register
@dataclass(frozen=True, kw_only=True)
class Universal(Attack):
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
    steps: int = 300
    step_size: str | float | None = None
    objective: Objective = CrossEntropy()
    batch_size: int = 8
    training_images: int = 200

    def __post_init__(self) -> None:
        build_parts(self, threat=self.threat, objective=self.objective)
        check_steps(self, self.steps)
        for name in ('batch_size', 'training_images'):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(f'Universal: {name} must be a positive integer; found {value!r}')
        if self.step_size is not None:
            object.__setattr__(self, 'step_size', checked_step_size(self.step_size, self.threat, 'Universal'))
            warn_of_short_steps(self.reach(), self.threat, 'Universal')
        object.__setattr__(self, '_perturbation', None)

    @property
    def targeted(self) -> bool:
        return self.objective.targeted

    @property
    def is_random(self) -> bool:
        return False

    @property
    def perturbation(self) -> Tensor | None:
        """The perturbation, (C, h, w); None before training. A copy with changed parameters has no perturbation."""
        perturbation: Tensor | None = getattr(self, '_perturbation')  # noqa: B009
        return perturbation

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
        attack = dataclasses.replace(self)
        object.__setattr__(attack, '_perturbation', self._in_ball(perturbation.detach()[None])[0])
        return attack

    @checked
    def train(
        self, batches: Iterable[Sequence[TrainingBatch]], *, seed: Seed = 0, ignore_index: IgnoreIndex = 255
    ) -> Universal:
        """Returns the attack with the perturbation that training finds.

        Args:
            batches: the mini-batches, at least ``steps``; each consists of parts with one size of labels per part.
            seed: seed of the noise at the start.
            ignore_index: label of pixels that do not count and give no gradient.

        Raises:
            UserError: there are fewer mini-batches than steps, no image has a valid pixel, or image sizes differ.
        """
        perturbation: Tensor | None = None
        done = 0
        for step, parts in zip(range(self.steps), batches, strict=False):
            check(parts, Sequence[TrainingBatch], f'Universal.train.batches[{step}]', exact=True)
            labelled = [_labelled(part, ignore_index) for part in parts]
            labelled = [part for part in labelled if len(part.images)]
            for part in labelled:
                if perturbation is None:
                    perturbation = self._start(part.images[:1], seed)
                _check_size(part.images, perturbation[0])
            if perturbation is not None and labelled:
                gradient = self._gradient(labelled, perturbation, step / self.steps, ignore_index)
                size = self.resolved_step_size() * _share(step / self.steps)
                perturbation = self._in_ball(self.threat.step(perturbation, gradient, size))
            done += 1
        if done < self.steps:
            raise UserError(f'Universal: training takes {self.steps} mini-batches; found {done}')
        if perturbation is None:
            raise UserError('Universal: none of the training images has a labelled pixel; check the training data')
        return self.with_perturbation(perturbation[0])

    def run(self, context: AttackContext, start: Tensor | None = None) -> AttackOutput:
        if start is not None:
            raise UserError('Universal: takes no start; its perturbation is the same for all images')
        if self.perturbation is None:
            raise UserError(
                'Universal: the perturbation is not trained; call its method train first, as mmadv test does'
            )
        _check_size(context.images, self.perturbation)
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
        return self.resolved_step_size() * sum(_share(step / self.steps) for step in range(self.steps))

    def _gradient(
        self, parts: Sequence[TrainingBatch], perturbation: Tensor, progress: float, ignore_index: int
    ) -> Tensor:
        """Returns the gradient of the mean objective with respect to the perturbation, (1, C, h, w)."""
        total = torch.zeros_like(perturbation)
        for model, images, labels in parts:
            with frozen(model), torch.inference_mode(False), torch.enable_grad():
                images, labels = images.detach().clone(), labels.detach().clone()
                context = AttackContext(model, images, labels, [0] * len(images), ignore_index)
                moved = images + perturbation
                gradient, _ = context.gradient(moved.clamp(0, 1), self.objective, progress)
                context.gradients.read()
            # Values whose sum leaves [0, 1] are clipped, so a change of the perturbation has no effect there.
            total += torch.where((moved >= 0) & (moved <= 1), gradient, 0).sum(0, keepdim=True)
        return total / sum(len(part.images) for part in parts)

    def _start(self, like: Tensor, seed: int) -> Tensor:
        noise = uniform_noise(like.detach(), [derive_seed(seed, 'universal')])
        return self._in_ball(self.threat.radius * noise)

    def _in_ball(self, perturbation: Tensor) -> Tensor:
        """Returns the perturbation (1, C, h, w) projected on the ball around zero.

        A threat projects on the ball around an image and on [0, 1]. This method scales the problem around mid-grey, so
        that [0, 1] sets no bound and only the ball does.
        """
        scale = 0.5 / max(1.0, float(perturbation.abs().max()))
        centre = torch.full_like(perturbation, 0.5)
        return (self.threat.scaled(scale).project(centre + scale * perturbation, centre) - centre) / scale


def _share(progress: float) -> float:
    """Returns a step's size as a share of the first step's size. It falls linearly to a tenth."""
    return 1 - 0.9 * progress


@checked
def check_part(model: Model, images: Images, labels: Labels) -> None:
    """Raises UserError if a part of a mini-batch is not a valid input of an attack."""


def _labelled(part: TrainingBatch, ignore_index: int) -> TrainingBatch:
    """Returns the part with only the images that have a valid pixel."""
    check_part(*part)
    keep = (part.labels != ignore_index).flatten(1).any(1)
    return TrainingBatch(part.model, part.images[keep], part.labels[keep])


def _check_size(images: Tensor, perturbation: Tensor) -> None:
    if images.shape[1:] != perturbation.shape:
        size, expected = ('x'.join(map(str, tensor.shape[-3:])) for tensor in (images, perturbation))
        raise UserError(
            f'a universal perturbation needs images of one size; it is {expected}, an image is {size} (channels, '
            'height, width); resize or crop all images to one size in the test pipeline'
        )
