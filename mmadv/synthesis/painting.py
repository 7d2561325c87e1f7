"""Inpainting, generation and targeted attacks with a segmentor's gradients.

The module has equations 6 and 7 of *Adversarially robust segmentation models learn perceptually-aligned gradients*
(Sandoval-Segura), and the large-ε targeted attacks and class-conditional synthesis of Kaur, Cohen, Lipton (2019).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mmadv.attacks.checks import Images, Labels, Mask, in_unit_range
from mmadv.attacks.pixel_scores import check_labels
from mmadv.errors import UserError
from mmadv.fields import IgnoreIndex, NotNegativeNumber, Positive, checked
from mmadv.robustness import class_scores
from mmadv.robustness.aligned_gradients import check_classes
from mmadv.shapes import FLOATS, Shaped
from mmadv.synthesis.descent import Descent, StepCallback

Model = Callable[[Tensor], Tensor]


@checked
def corrupt(images: Images, mask: Mask) -> Tensor:
    """Returns the images with each masked pixel set to the mean of its channel over the whole image.

    Args:
        images: (N, C, h, w) in [0, 1].
        mask: (N, 1, h, w) bool, True at the pixels to corrupt.

    Raises:
        UserError: images are not in [0, 1], or the mask has another size or covers no pixel.
    """
    check_mask(mask)
    return torch.where(mask, images.mean((2, 3), keepdim=True), images)


@checked
def inpaint(
    model: Model,
    images: Images,
    labels: Labels,
    mask: Mask,
    *,
    descent: Descent,
    penalty: NotNegativeNumber = 1.0,
    ignore_index: IgnoreIndex = 255,
    callback: StepCallback | None = None,
) -> Tensor:
    """Returns the images with their masked part painted by the model's gradients (equation 6).

    The descent starts from the corrupted image x and minimises L(x', y) + λ ‖(x - x') ⊙ (1 - m)‖₂. L is the mean
    cross-entropy.

    Args:
        model: images -> logits (N, K, H, W).
        images: (N, C, h, w) in [0, 1]. Their masked part is used only for the mean colour of the start.
        labels: (N, H, W) int64, the segmentation of the whole images.
        mask: (N, 1, h, w) bool, True at the pixels to paint.
        descent: the steps.
        penalty: λ, not negative.
        ignore_index: label of pixels that do not count.
        callback: as in ``Descent``.

    Raises:
        UserError: the mask has another size, the penalty is negative, or the labels have another size than the logits.
    """
    start = corrupt(images, mask)

    def loss(painted: Tensor, logits: Tensor) -> Tensor:
        change = ((start - painted) * ~mask).flatten(1)
        return segmentation_loss(logits, labels, ignore_index) + penalty * torch.linalg.vector_norm(change, dim=1)

    return descent(model, loss, start, callback=callback)


@checked
def generate(
    model: Model,
    means: Annotated[Tensor, Shaped('N C', FLOATS, in_unit_range)],
    labels: Labels,
    size: tuple[Positive, Positive],
    *,
    descent: Descent,
    ignore_index: IgnoreIndex = 255,
    callback: StepCallback | None = None,
) -> Tensor:
    """Returns images whose prediction is a given segmentation, from plain colours (equation 7).

    Args:
        model: images -> logits (N, K, H, W).
        means: (N, C) value of each channel at the start, in [0, 1].
        labels: (N, H, W) int64.
        size: height and width of the images.
        descent: the steps.
        ignore_index: label of pixels that do not count.
        callback: as in ``Descent``.
    """
    start = means[:, :, None, None].expand(-1, -1, *size).contiguous()
    return descent(model, lambda _, logits: segmentation_loss(logits, labels, ignore_index), start, callback=callback)


@checked
def move_to_class(
    model: Model,
    images: Images,
    classes: Annotated[Tensor, Shaped('N', ('int64',))],
    *,
    descent: Descent,
    objective: Literal['mean_logit', 'cross_entropy'] = 'mean_logit',
    callback: StepCallback | None = None,
) -> Tensor:
    """Returns the images moved towards a class everywhere: a large-ε targeted attack, or synthesis from a seed.

    Args:
        model: images -> logits (N, K, H, W). A smoothed model returns the mean logits or log probabilities.
        images: (N, C, h, w) in [0, 1].
        classes: (N,) int64, the target class of each image.
        descent: the steps, and the ball around the images.
        objective: 'mean_logit' raises the class' mean logit (the TCM loss), 'cross_entropy' lowers the mean
            cross-entropy.
        callback: as in ``Descent``.

    Raises:
        UserError: the objective is unknown, or the model does not have the class.
    """

    def loss(_: Tensor, logits: Tensor) -> Tensor:
        check_classes(classes, logits.shape[1], 'move_to_class.classes')
        everywhere = classes[:, None, None].expand(-1, *logits.shape[2:])
        if objective == 'cross_entropy':
            return segmentation_loss(logits, everywhere, -1)
        return -class_scores(logits, classes[:, None], everywhere, ignore_index=-1)[:, 0]

    return descent(model, loss, images, callback=callback)


def segmentation_loss(logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """Returns the mean cross-entropy over the valid pixels of each image, (N,), 0 if an image has none.

    Raises:
        UserError: the labels have another size than the logits, or classes that the logits do not have.
    """
    if logits.ndim != 4 or logits.shape[2:] != labels.shape[1:]:
        raise UserError(f'labels {tuple(labels.shape)} must be of the size of the logits {tuple(logits.shape)}')
    check_labels(labels, logits.shape[1], ignore_index)
    pixels = F.cross_entropy(logits, labels, ignore_index=ignore_index, reduction='none').flatten(1)
    return pixels.sum(1) / (labels != ignore_index).flatten(1).sum(1).clamp_min(1)


def check_mask(mask: Tensor) -> None:
    """Raises UserError unless a mask (N, 1, h, w) is True somewhere in each image."""
    if not bool(mask.flatten(1).any(1).all()):
        raise UserError('the mask covers no pixel; give a mask that covers the pixels to paint')
