"""Perceptually aligned gradients: the PAG loss, and what is measured of input gradients.

Everything takes images (N, *S) of any shape S and scores (N, T), one number per image and target class, so that
classifiers, segmentors and networks on points are alike. ``class_scores`` makes the scores of a segmentor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from mmadv.attacks.checks import Images, Labels, finite, warn_of_probabilities
from mmadv.attacks.freezing import frozen
from mmadv.attacks.pixel_scores import check_labels
from mmadv.errors import UserError
from mmadv.fields import IgnoreIndex, Positive, PositiveNumber, Range, checked, checked_exactly
from mmadv.shapes import ANY_FLOATS, Shaped

# Gradients of so many classes are held at once where they are only measured.
CLASSES_AT_ONCE = 8
Over = Literal['valid', 'class']
# In cycles per pixel, along an axis at most a half.
Frequency = Annotated[float, Range(0, math.sqrt(0.5))]
Scores = Annotated[Tensor, Shaped('N T', ANY_FLOATS)]
Classes = Annotated[Tensor, Shaped('N T', ('int64',))]
Samples = Annotated[Tensor, Shaped('N *S', ANY_FLOATS)]
Vectors = Annotated[Tensor, Shaped('N T *S', ANY_FLOATS)]


def check_classes(classes: Tensor, num_classes: int, name: str) -> None:
    """Raises UserError for a class outside [0, num_classes): an index that counts from the end, or fails on a device.

    Args:
        classes: int64, of any shape.
        num_classes: K.
        name: of the argument, for the message.
    """
    if classes.numel():
        lowest, highest = torch.stack(torch.aminmax(classes)).tolist()
        if lowest < 0 or highest >= num_classes:
            raise UserError(f'{name} must lie in [0, {num_classes}); found values from {lowest} to {highest}')


@checked
def class_scores(
    logits: Annotated[Tensor, Shaped(('N K', 'N K H W'), ANY_FLOATS)],
    classes: Classes,
    labels: Labels | None = None,
    *,
    over: Over = 'valid',
    ignore_index: IgnoreIndex = 255,
) -> Tensor:
    """Returns the score of each image for each of its target classes, (N, T).

    A classifier's score is the logit. A segmentor's is the mean of the class' logit over the image's valid
    pixels; with ``over='class'`` over the pixels labelled with the class, and over the valid pixels still where the
    image does not hold it.

    Args:
        logits: (N, K) of a classifier, or (N, K, H, W) of a segmentor.
        classes: (N, T) int64 in [0, K), the targets of each image.
        labels: (N, H, W) int64, for a segmentor.
        over: 'valid' or 'class'.
        ignore_index: label of pixels that are in no mean.

    Raises:
        UserError: sizes that do not fit, a class or label that is none of the logits, or no labels for a segmentor.
    """
    check_classes(classes, logits.shape[1], 'class_scores.classes')
    if logits.ndim == 2:
        return logits.gather(1, classes)
    if labels is None:
        raise UserError(f'class_scores.labels must be given for logits {tuple(logits.shape)} of a segmentor')
    check_labels(labels, logits.shape[1], ignore_index)
    chosen = logits.gather(1, classes[:, :, None, None].expand(-1, -1, *logits.shape[2:]))
    counted = (labels != ignore_index)[:, None].expand_as(chosen)
    if over == 'class':
        own = labels[:, None] == classes[:, :, None, None]
        held = own.flatten(2).any(2)[:, :, None, None]
        counted = torch.where(held, own & counted, counted)
    pixels = counted.flatten(2).sum(2)
    # An image without a valid pixel scores 0, with a zero gradient.
    return torch.where(counted, chosen, 0).flatten(2).sum(2) / pixels.clamp_min(1)


@checked
def input_gradients(scores: Scores, images: Samples, *, create_graph: bool = False) -> Tensor:
    """Returns the gradient of each score with respect to its own image, (N, T, *S).

    Costs one backward pass for each of the T columns. Where images influence each other's scores, as through a batch
    norm in training, the gradient is that of the sum of the batch's scores.

    Args:
        scores: (N, T), computed from ``images``.
        images: (N, *S) that require gradients.
        create_graph: whether the gradients are to be differentiated themselves.

    Raises:
        UserError: the scores do not depend on the images.
    """
    if not scores.requires_grad or not images.requires_grad:
        raise UserError('the scores do not depend on the images differentiably; images must require gradients')
    columns = []
    for t in range(scores.shape[1]):
        (gradient,) = torch.autograd.grad(
            scores[:, t].sum(), images, create_graph=create_graph, retain_graph=True, allow_unused=True
        )
        if gradient is None:
            raise UserError('the scores do not depend on the images; compute them from these very tensors')
        columns.append(gradient)
    return torch.stack(columns, 1)


@checked
def cosine_similarity(vectors: Vectors, others: Vectors, *, guard: PositiveNumber = 1e-8) -> Tensor:
    """Returns v·u / max(‖v‖‖u‖, guard) over all but the first two dimensions, (N, T) (PAG paper, equation 2).

    Args:
        vectors: (N, T, *S).
        others: (N, T, *S).
        guard: ε of the equation, which keeps zero vectors from a division by zero: their cosine is 0.
    """
    vectors, others = vectors.flatten(2), others.flatten(2)
    norms = torch.linalg.vector_norm(vectors, dim=2) * torch.linalg.vector_norm(others, dim=2)
    return (vectors * others).sum(2) / norms.clamp_min(guard)


@dataclass(frozen=True)
class Alignment:
    """What the PAG loss found for a batch.

    Attributes:
        loss: (N,) the loss of each image, differentiable.
        cosines: (N, T) between the gradients and their targets, detached.
        gradients: (N, T, *S), detached.
    """

    loss: Tensor
    cosines: Tensor
    gradients: Tensor


@checked_exactly
@dataclass(frozen=True, kw_only=True)
class PAGLoss:
    """λ Σ_t (1 - cos(∇ₓ f_t(x), g(x, t))), the auxiliary loss that aligns input gradients.

    Equations 1 and 2 of Ganz, Kawar, Elad, *Do perceptually aligned gradients imply robustness?* (2023); the
    cross-entropy of equation 1 is the caller's. Each of the T targets costs a backward pass and another backward
    pass through it.

    Args:
        weight: λ, positive.
        num_classes: C, when the T targets are a random subset of the classes: the sum over them is multiplied by C / T,
            which makes it an unbiased estimate of the sum over all classes. None takes the sum as it is.
        guard: ε of equation 2.

    Raises:
        UserError: a weight that is not positive, or a guard that is not.
    """

    weight: PositiveNumber
    num_classes: Positive | None = None
    guard: PositiveNumber = 1e-8

    @checked
    def __call__(
        self,
        scores: Scores,
        images: Samples,
        targets: Vectors,
        mask: Annotated[Tensor, Shaped('_ *', ('bool',))] | None = None,
    ) -> Alignment:
        """Returns the loss of each image, with a graph for the second backward pass.

        Args:
            scores: (N, T) of the target classes, computed from ``images``.
            images: (N, *S) that require gradients.
            targets: (N, T, *S) the directions g(x, t).
            mask: (N, *S) or broadcastable; False where a gradient does not count, such as padding.

        Raises:
            UserError: shapes that do not fit, or scores that do not depend on the images.
        """
        gradients = input_gradients(scores, images, create_graph=True)
        if mask is not None:
            _check_broadcastable(mask, images.shape)
            gradients, targets = gradients * mask[:, None], targets * mask[:, None]
        cosines = cosine_similarity(gradients, targets.detach(), guard=self.guard)
        scale = 1.0 if self.num_classes is None else self.num_classes / scores.shape[1]
        loss = self.weight * scale * (1 - cosines).sum(1)
        return Alignment(loss, cosines.detach(), gradients.detach())


def _check_broadcastable(mask: Tensor, shape: torch.Size) -> None:
    fits = mask.ndim == len(shape) and all(size in (1, whole) for size, whole in zip(mask.shape, shape, strict=True))
    if not fits:
        raise UserError(
            f'PAGLoss.mask must be of the shape of the images, {tuple(shape)}, or 1; found {tuple(mask.shape)}'
        )


@checked
def high_frequency_share(
    gradients: Annotated[Tensor, Shaped('* C H W', ANY_FLOATS, finite)], *, cutoff: Frequency = 0.25
) -> Tensor:
    """Returns the share of each map's energy at spatial frequencies above ``cutoff``, (...,): its sharpness.

    White noise has about ``1 - π cutoff²`` of it, smooth maps little. The energy is that of the discrete Fourier
    transform, summed over channels, without the mean.

    Args:
        gradients: (..., C, H, W).
        cutoff: in cycles per pixel, the length of the frequency vector; at most 0.5 along an axis.

    Returns:
        Shares in [0, 1], shape ``gradients.shape[:-3]``, 0 for a constant map.
    """
    height, width = gradients.shape[-2:]
    energy = torch.fft.fft2(gradients.float()).abs().square().sum(-3)
    rows = torch.fft.fftfreq(height, device=gradients.device)[:, None]
    columns = torch.fft.fftfreq(width, device=gradients.device)[None]
    frequency = torch.sqrt(rows.square() + columns.square())
    energy = energy * (frequency > 0)
    total = energy.sum((-2, -1))
    high = (energy * (frequency > cutoff)).sum((-2, -1))
    return torch.where(total > 0, high / total.clamp_min(torch.finfo(energy.dtype).tiny), 0.0)


@checked
@torch.enable_grad()
def measure_gradients(
    model: Callable[[Tensor], Tensor],
    images: Images,
    labels: Labels | None,
    classes: Classes,
    target: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    *,
    over: Over = 'valid',
    ignore_index: IgnoreIndex = 255,
) -> tuple[Tensor, Tensor]:
    """Returns how aligned and how sharp the input gradients of class scores are: cosines and shares, (N, T) each.

    A cosine is that between the gradient of a class' score and g(x, t); a share is ``high_frequency_share``. Costs one
    forward pass and one backward pass for each of the T classes.

    Args:
        model: images -> logits; in eval mode for the while if it is a module.
        images: (N, C, H, W) in [0, 1].
        labels: (N, H, W) of a segmentor, None for a classifier.
        classes: (N, T) int64.
        target: g, as of ``GradientTarget``.
        over: pixels of the score, as in ``class_scores``.
        ignore_index: label of pixels that are in no score.

    Raises:
        UserError: images that are not in [0, 1].
    """
    cosines, shares = [], []
    with frozen(model):
        inputs = images.detach().requires_grad_()
        logits = model(inputs)
        warn_of_probabilities(logits)
        scores = class_scores(logits, classes, labels, over=over, ignore_index=ignore_index)
        for some, scored in zip(classes.split(CLASSES_AT_ONCE, 1), scores.split(CLASSES_AT_ONCE, 1), strict=True):
            gradients = input_gradients(scored, inputs).detach()
            cosines.append(cosine_similarity(gradients, target(images.detach(), some, labels)))
            shares.append(high_frequency_share(gradients))
    return torch.cat(cosines, 1), torch.cat(shares, 1)
