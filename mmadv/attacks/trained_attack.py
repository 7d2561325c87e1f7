"""The base of attacks that train one change for all images, and then apply it without a gradient."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmadv.attacks.attack import Attack, build_parts, check_steps
from mmadv.attacks.attack_context import AttackContext, Model
from mmadv.attacks.checks import Images, Labels
from mmadv.attacks.freezing import frozen
from mmadv.attacks.objectives import JensenShannon, Objective
from mmadv.attacks.randomness import derive_seed
from mmadv.errors import UserError
from mmadv.fields import IgnoreIndex, Seed, check, checked


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


@dataclass(frozen=True, kw_only=True)
class TrainedAttack(Attack):
    """Base of attacks that train one tensor for all images by mini-batch ascent of an objective.

    A step takes the gradient of each image's mean objective and the mean of these gradients over a mini-batch. Step
    sizes fall linearly to a tenth.

    Args:
        steps: number of mini-batches to train on.
        objective: the objective to maximise, or its config.
        batch_size: number of images in a mini-batch.
        training_images: number of images that ``mmadv test`` trains on, spread evenly over the training data.
    """

    steps: int = 300
    objective: Objective = JensenShannon()
    batch_size: int = 8
    training_images: int = 200

    def __post_init__(self) -> None:
        build_parts(self, objective=self.objective)
        check_steps(self, self.steps)
        for name in ('batch_size', 'training_images'):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(f'{type(self).__name__}: {name} must be a positive integer; found {value!r}')
        object.__setattr__(self, '_trained', None)

    @property
    def targeted(self) -> bool:
        return self.objective.targeted

    @property
    def trained(self) -> Tensor | None:
        """The trained tensor; None before training. A copy with changed parameters has none."""
        trained: Tensor | None = getattr(self, '_trained')  # noqa: B009
        return trained

    @abstractmethod
    def with_trained(self, values: Tensor) -> Any:
        """Returns the attack with a given tensor in place of a trained one."""

    @checked
    def train(
        self, batches: Iterable[Sequence[TrainingBatch]], *, seed: Seed = 0, ignore_index: IgnoreIndex = 255
    ) -> Any:
        """Returns the attack with the tensor that training finds.

        Args:
            batches: the mini-batches, at least ``steps``; each consists of parts with one size of labels per part.
            seed: seed of the start, and of all draws.
            ignore_index: label of pixels that do not count and give no gradient.

        Raises:
            UserError: there are fewer mini-batches than steps, no image has a valid pixel, or image sizes do not fit.
        """
        kind = type(self).__name__
        values = velocity = None
        done = 0
        for step, parts in zip(range(self.steps), batches, strict=False):
            check(parts, Sequence[TrainingBatch], f'{kind}.train.batches[{step}]', exact=True)
            labelled = [_labelled(part, ignore_index) for part in parts]
            labelled = [part for part in labelled if len(part.images)]
            for part in labelled:
                if values is None:
                    values = self._start(part.images[:1], seed)
                    velocity = torch.zeros_like(values)
                self._check_size(part.images, values)
            if values is not None and velocity is not None and labelled:
                gradient = self._gradient(labelled, values, step, seed, ignore_index)
                values, velocity = self._moved(values, velocity, gradient, step)
            done += 1
        if done < self.steps:
            raise UserError(f'{kind}: training takes {self.steps} mini-batches; found {done}')
        if values is None:
            raise UserError(f'{kind}: none of the training images has a labelled pixel; check the training data')
        return self.with_trained(values[0])

    def _gradient(
        self, parts: Sequence[TrainingBatch], values: Tensor, step: int, seed: int, ignore_index: int
    ) -> Tensor:
        """Returns the gradient of the mean objective with respect to the trained tensor, (1, ...)."""
        total, done = torch.zeros_like(values), 0
        for model, images, labels in parts:
            with frozen(model), torch.inference_mode(False), torch.enable_grad():
                images, labels = images.detach().clone(), labels.detach().clone()
                seeds = [derive_seed(seed, 'training', step, done + n) for n in range(len(images))]
                context = AttackContext(model, images, labels, seeds, ignore_index)
                total += self._sum_of_gradients(context, values, step / self.steps)
                context.gradients.read()
            done += len(images)
        return total / done

    def _with_tensor(self, values: Tensor, **changes: Any) -> Any:
        """Returns a copy of the attack, with the given tensor and perhaps other fields."""
        attack = dataclasses.replace(self, **changes)
        object.__setattr__(attack, '_trained', values)
        return attack

    @abstractmethod
    def _start(self, like: Tensor, seed: int) -> Tensor:
        """Returns the first tensor, (1, ...), for images such as ``like`` (1, C, h, w)."""

    @abstractmethod
    def _check_size(self, images: Tensor, values: Tensor) -> None:
        """Raises UserError unless the tensor (1, ...) fits the images."""

    @abstractmethod
    def _sum_of_gradients(self, context: AttackContext, values: Tensor, progress: float) -> Tensor:
        """Returns the sum over images of the gradients with respect to the tensor, (1, ...)."""

    @abstractmethod
    def _moved(self, values: Tensor, velocity: Tensor, gradient: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Returns the tensor and the velocity after a step."""


def step_share(progress: float) -> float:
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
