"""Targets g(x, t) of the PAG loss: the direction that the gradient of class t should have at image x.

Three of them point from the image to a representative of the class, g(x, t) = r_t - x (section 4.2 of the PAG paper).
The fourth is the gradient of a robust teacher (section 4.1). Images are (N, *S) of any shape S. Stored examples may be
uint8; they are then images in [0, 1], times 255.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from mmadv.attacks.checks import check_range, finite
from mmadv.errors import UserError
from mmadv.fields import (
    IgnoreIndex,
    NotNegative,
    Positive,
    PositiveNumber,
    Seed,
    checked,
    checked_exactly,
)
from mmadv.robustness.aligned_gradients import Classes, Over, Samples, check_classes, class_scores, input_gradients
from mmadv.robustness.clustering import cluster_means
from mmadv.shapes import ANY_FLOATS, Shaped

# Stored examples may be uint8.
PIXELS = ('uint8', *ANY_FLOATS)
ImageLabels = Annotated[Tensor, Shaped(('N', 'N H W'), ('int64',))]


@checked_exactly
@dataclass(frozen=True)
class ClassBank:
    """A limited set of examples of every class.

    Attributes:
        examples: (K, M, *S), uint8 or float. Images (C, H, W) are in [0, 1]. Rows beyond a class' count are not used.
        counts: (K,) int64, the number of examples of each class.

    Raises:
        UserError: sizes do not fit, a count is negative or more than M, or images are outside [0, 1].
    """

    examples: Annotated[Tensor, Shaped('K M D *S', PIXELS)]
    counts: Annotated[Tensor, Shaped('K', ('int64',))]

    def __post_init__(self) -> None:
        if bool(((self.counts < 0) | (self.counts > self.examples.shape[1])).any()):
            raise UserError(
                f'ClassBank.counts must lie between 0 and {self.examples.shape[1]}, the examples that the bank holds '
                f'of a class; found {self.counts.tolist()}'
            )
        if self.examples.ndim == 5 and self.examples.is_floating_point():
            for examples, count in zip(self.examples, self.counts.tolist(), strict=True):
                check_range(examples[:count], 'the examples of a bank')

    @property
    def num_classes(self) -> int:
        """Returns K."""
        return len(self.counts)

    @checked
    def to(self, device: torch.device | str | int) -> ClassBank:
        """Returns the bank on a device.

        Raises:
            UserError: torch has no such device.
        """
        try:
            examples, counts = self.examples.to(device), self.counts.to(device)
        except (RuntimeError, TypeError, ValueError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f'ClassBank.to: device must be one that torch has; {reason}') from None
        return ClassBank(examples, counts)


@checked
def draw_bank(
    images: Annotated[Tensor, Shaped('N *S', PIXELS, finite)],
    labels: Annotated[Tensor, Shaped('N', ('int64',))],
    *,
    num_classes: Positive,
    per_class: Positive,
    seed: Seed = 0,
) -> ClassBank:
    """Returns ``per_class`` images of each class, drawn without replacement (D_y of equation 3).

    Args:
        images: (N, *S).
        labels: (N,) int64.
        num_classes: K.
        per_class: M.
        seed: seed of the draw.

    Raises:
        UserError: a class has fewer than ``per_class`` images, or a label is outside [0, K).
    """
    check_classes(labels, num_classes, 'draw_bank.labels')
    if images.ndim == 4 and images.is_floating_point():
        check_range(images, 'draw_bank.images')
    generator = torch.Generator().manual_seed(seed)
    examples = []
    for k in range(num_classes):
        own = (labels == k).nonzero().flatten().cpu()
        if len(own) < per_class:
            raise UserError(
                f'class {k} of num_classes {num_classes} has {len(own)} images with its labels, fewer than the '
                f'per_class {per_class} of its bank; ask for fewer per class'
            )
        examples.append(images[own[torch.randperm(len(own), generator=generator)[:per_class]].to(images.device)])
    return ClassBank(torch.stack(examples), torch.full((num_classes,), per_class))


class GradientTarget(nn.Module, ABC):
    """Base class of the targets: a callable (images, classes, labels) -> directions."""

    @property
    @abstractmethod
    def num_classes(self) -> int:
        """Returns K, the number of classes that the target knows."""

    @abstractmethod
    def forward(self, images: Tensor, classes: Tensor, labels: Tensor | None = None) -> Tensor:
        """Returns g(x, t), (N, T, *S).

        Args:
            images: (N, *S).
            classes: (N, T) int64, the targets of each image.
            labels: the images' labels; only a teacher needs them.
        """


@checked_exactly
class FixedRepresentative(GradientTarget):
    """g(x, t) = r_t - x, the same r_t for every image.

    Args:
        representatives: (K, *S), uint8 or float.
    """

    representatives: Tensor

    def __init__(self, representatives: Annotated[Tensor, Shaped('K *S', PIXELS, finite)]) -> None:
        super().__init__()
        self.register_buffer('representatives', _as_pixels(representatives), persistent=False)

    @property
    def num_classes(self) -> int:
        return len(self.representatives)

    @checked
    def forward(self, images: Samples, classes: Classes, labels: ImageLabels | None = None) -> Tensor:
        _check_size(self.representatives.shape[1:], images)
        check_classes(classes, self.num_classes, f'{type(self).__name__}.classes')
        return self.representatives.to(images.dtype)[classes] - images[:, None]


@checked_exactly
class OneImage(FixedRepresentative):
    """One arbitrary training image represents its class: the class' first example in the bank.

    Args:
        bank: at least one example of each class.
        without: classes that the caller never asks for; the bank may have no example of them.
    """

    def __init__(self, bank: ClassBank, *, without: Sequence[NotNegative] = ()) -> None:
        _check_held(bank, without)
        super().__init__(bank.examples[:, 0])


@checked_exactly
class ClassMean(FixedRepresentative):
    """The mean of the class' examples in the bank represents the class.

    Args:
        bank: at least one example of each class.
        scale: factor on the mean, for example to give it the norm of an image.
        without: as in ``OneImage``.
    """

    def __init__(self, bank: ClassBank, *, scale: PositiveNumber = 1.0, without: Sequence[NotNegative] = ()) -> None:
        _check_held(bank, without)
        # The caller never asks for a class without examples. Its mean takes one row, as the mean of none is NaN.
        means = [
            _as_pixels(examples[: max(count, 1)]).mean(0)
            for examples, count in zip(bank.examples, bank.counts.tolist(), strict=True)
        ]
        super().__init__(scale * torch.stack(means))


@checked_exactly
class NearestNeighbour(GradientTarget):
    """The nearest of the class' examples represents the class, in L2 and other than the image itself (equation 3).

    An example that equals the image is not its neighbour. If the bank has no other example of the class, the direction
    is zero.

    Args:
        bank: at least one example of each class.
        without: as in ``OneImage``.
    """

    examples: Tensor
    counts: Tensor

    def __init__(self, bank: ClassBank, *, without: Sequence[NotNegative] = ()) -> None:
        super().__init__()
        _check_held(bank, without)
        self.register_buffer('examples', bank.examples, persistent=False)
        self.register_buffer('counts', bank.counts, persistent=False)

    @property
    def num_classes(self) -> int:
        return len(self.counts)

    @checked
    def forward(self, images: Samples, classes: Classes, labels: ImageLabels | None = None) -> Tensor:
        _check_size(self.examples.shape[2:], images)
        check_classes(classes, self.num_classes, 'NearestNeighbour.classes')
        images = images.detach()
        directions = images.new_zeros((*classes.shape, *images.shape[1:]))
        # The loop takes one class at a time, as the examples of all classes may not fit in memory for large images.
        for k in classes.unique().tolist():
            examples = _as_pixels(self.examples[k, : int(self.counts[k])]).to(images.dtype)
            rows, columns = (classes == k).nonzero(as_tuple=True)
            difference = examples[None] - images[rows][:, None]
            distance = torch.linalg.vector_norm(difference.flatten(2), dim=2)
            nearest = torch.where(distance > 0, distance, torch.inf).argmin(1)
            directions[rows, columns] = difference[torch.arange(len(rows), device=rows.device), nearest]
        return directions


@checked_exactly
class NearestClusterMean(NearestNeighbour):
    """The nearest mean of the class' clusters represents the class: class mean and nearest neighbour in one.

    Section 4.2 of the PAG paper proposes it and does not try it: k-means splits the examples of a class into clusters,
    and the nearest of their means is the representative. One cluster is ``ClassMean``. As many clusters as examples are
    ``NearestNeighbour``.

    Args:
        bank: at least one example of each class.
        clusters: number of clusters of each class; a class has fewer if it has fewer different examples.
        seed: seed of the clusters.
        without: as in ``OneImage``.
    """

    def __init__(
        self, bank: ClassBank, *, clusters: Positive = 4, seed: Seed = 0, without: Sequence[NotNegative] = ()
    ) -> None:
        _check_held(bank, without)
        means = [
            cluster_means(_as_pixels(examples[:count]), clusters, seed) if count else _as_pixels(examples[:0])
            for examples, count in zip(bank.examples, bank.counts.tolist(), strict=True)
        ]
        counts = torch.tensor([len(one) for one in means], device=bank.counts.device)
        rows = means[0].new_zeros((len(means), int(counts.max()), *means[0].shape[1:]))
        for row, one in zip(rows, means, strict=True):
            row[: len(one)] = one
        super().__init__(ClassBank(rows, counts), without=without)


@checked_exactly
class Distillation(GradientTarget):
    """g(x, t) is the input gradient of a robust teacher's score (robust input-gradient distillation).

    Args:
        teacher: images -> logits, in the student's format. A module is frozen and put into eval mode.
        num_classes: K, the number of classes of both student and teacher.
        over: the pixels of the score, as in ``class_scores``.
        ignore_index: label of pixels that every score leaves out.
    """

    def __init__(
        self,
        teacher: Callable[[Tensor], Tensor],
        num_classes: Positive,
        *,
        over: Over = 'valid',
        ignore_index: IgnoreIndex = 255,
    ) -> None:
        super().__init__()
        self.teacher = teacher
        self._num_classes = num_classes
        self.over = over
        self.ignore_index = ignore_index
        if isinstance(teacher, nn.Module):
            teacher.eval().requires_grad_(False)

    @property
    def num_classes(self) -> int:
        return self._num_classes

    @checked
    def train(self, mode: bool = True) -> Distillation:
        """Returns itself; the teacher stays in eval mode."""
        return self

    @checked
    def forward(self, images: Samples, classes: Classes, labels: ImageLabels | None = None) -> Tensor:
        with torch.enable_grad():
            inputs = images.detach().requires_grad_()
            logits = self.teacher(inputs)
            if logits.shape[1] != self._num_classes:
                raise UserError(
                    f'the teacher has {logits.shape[1]} classes and the student {self._num_classes}; '
                    'take a teacher of the same classes'
                )
            scores = class_scores(logits, classes, labels, over=self.over, ignore_index=self.ignore_index)
            return input_gradients(scores, inputs)


def _as_pixels(examples: Tensor) -> Tensor:
    return examples.float() / 255 if examples.dtype == torch.uint8 else examples


def _check_held(bank: ClassBank, without: Sequence[int]) -> None:
    missing = [k for k, held in enumerate(bank.counts.tolist()) if held == 0 and k not in without]
    if missing:
        raise UserError(f'the bank holds no example of class {missing[0]}; look through more images')


def _check_size(size: torch.Size, images: Tensor) -> None:
    if images.shape[1:] != size:
        raise UserError(
            f'the representatives are of size {tuple(size)} and the images of {tuple(images.shape[1:])}; '
            'make a bank of the size that the network is trained on'
        )
