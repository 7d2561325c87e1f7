"""Perceptually aligned gradients: the PAG loss, and measures of input gradients.

Everything takes images (N, *S) of any shape S and scores (N, T), one number per image and target class. Classifiers,
segmentors and networks on points are therefore treated alike. ``class_scores`` computes the scores of a segmentor.
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

# Number of classes whose gradients are in memory at once in ``measure_gradients``.
CLASSES_AT_ONCE = 8
Over = Literal['valid', 'class']
# In cycles per pixel. A frequency is at most 0.5 along each axis, so its length is at most √0.5.
Frequency = Annotated[float, Range(0, math.sqrt(0.5))]
Scores = Annotated[Tensor, Shaped('N T', ANY_FLOATS)]
Classes = Annotated[Tensor, Shaped('N T', ('int64',))]
Samples = Annotated[Tensor, Shaped('N *S', ANY_FLOATS)]
Vectors = Annotated[Tensor, Shaped('N T *S', ANY_FLOATS)]


def check_classes(classes: Tensor, num_classes: int, name: str) -> None:
    """Raises UserError for a class outside [0, num_classes).

    A negative index would count from the end. An index that is too large would fail on the device.

    Args:
        classes: int64, of any shape.
        num_classes: K.
        name: the argument's name, for the message.
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

    A classifier's score is the logit. A segmentor's score is the mean of the class' logit over the image's valid
    pixels. With ``over='class'`` the mean is over the pixels labelled with the class. If the image has no such
    pixel, the mean is over the valid pixels.

    Args:
        logits: (N, K) of a classifier, or (N, K, H, W) of a segmentor.
        classes: (N, T) int64 in [0, K), the targets of each image.
        labels: (N, H, W) int64, for a segmentor.
        over: 'valid' or 'class'.
        ignore_index: label of pixels that every mean leaves out.

    Raises:
        UserError: sizes do not fit, a class or label is outside [0, K), or a segmentor's labels are missing.
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

    This costs one backward pass for each of the T columns. If images influence each other's scores, as batch norm in
    training mode does, the result is the gradient of the sum of the batch's scores.

    Args:
        scores: (N, T), computed from ``images``.
        images: (N, *S) that require gradients.
        create_graph: whether the caller differentiates the gradients again.

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
            raise UserError('the scores do not depend on the images; compute them from these tensors')
        columns.append(gradient)
    return torch.stack(columns, 1)


@checked
def cosine_similarity(vectors: Vectors, others: Vectors, *, guard: PositiveNumber = 1e-8) -> Tensor:
    """Returns v·u / max(‖v‖‖u‖, guard) over all but the first two dimensions, (N, T) (PAG paper, equation 2).

    Args:
        vectors: (N, T, *S).
        others: (N, T, *S).
        guard: ε of the equation. It prevents a division by zero: the cosine of a zero vector is 0.
    """
    vectors, others = vectors.flatten(2), others.flatten(2)
    norms = torch.linalg.vector_norm(vectors, dim=2) * torch.linalg.vector_norm(others, dim=2)
    return (vectors * others).sum(2) / norms.clamp_min(guard)


@dataclass(frozen=True)
class Alignment:
    """The PAG loss of a batch, with the cosines and gradients it comes from.

    Attributes:
        loss: (N,) the loss of each image, differentiable.
        cosines: (N, T) the cosines between the gradients and their targets, detached.
        gradients: (N, T, *S) the input gradients, detached.
    """

    loss: Tensor
    cosines: Tensor
    gradients: Tensor


@checked_exactly
@dataclass(frozen=True, kw_only=True)
class PAGLoss:
    """λ Σ_t (1 - cos(∇ₓ f_t(x), g(x, t))), the auxiliary loss that aligns input gradients.

    It follows equations 1 and 2 of Ganz, Kawar, Elad, *Do perceptually aligned gradients imply robustness?* (2023).
    The caller adds the cross-entropy of equation 1. Each of the T targets costs a backward pass and a second backward
    pass through the first.

    Args:
        weight: λ, positive.
        num_classes: C, if the T targets are a random subset of the classes. The sum over the targets is then multiplied
            by C / T, which makes it an unbiased estimate of the sum over all classes. None does not scale the sum.
        guard: ε of equation 2.

    Raises:
        UserError: the weight or the guard is not positive.
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
            scores: (N, T) the scores of the target classes, computed from ``images``.
            images: (N, *S) that require gradients.
            targets: (N, T, *S) the directions g(x, t).
            mask: (N, *S) or broadcastable; False at values whose gradient does not count, such as padding.

        Raises:
            UserError: shapes do not fit, or the scores do not depend on the images.
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

    The share is about ``1 - π cutoff²`` for white noise, and small for smooth maps. The energy is the squared magnitude
    of the discrete Fourier transform, summed over channels, without the zero frequency (the mean).

    Args:
        gradients: (..., C, H, W).
        cutoff: length of the frequency vector, in cycles per pixel; a frequency is at most 0.5 along each axis.

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

    A cosine compares the gradient of a class' score with g(x, t). A share is the ``high_frequency_share`` of the
    gradient. The call costs one forward pass, and one backward pass for each of the T classes.

    Args:
        model: images -> logits. A module is in eval mode during the call.
        images: (N, C, H, W) in [0, 1].
        labels: (N, H, W) for a segmentor, None for a classifier.
        classes: (N, T) int64.
        target: g, a callable such as a ``GradientTarget``.
        over: pixels of the score, as in ``class_scores``.
        ignore_index: label of pixels that every score leaves out.

    Raises:
        UserError: images are not in [0, 1].
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
