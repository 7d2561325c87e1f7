"""Checks of the range and unit of images, radii, noise and step sizes. Every public entry uses these checks."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from mmadv.attacks.threat import Linf, Threat, parse_radius
from mmadv.errors import UserError
from mmadv.shapes import ANY_FLOATS, FLOATS, Shaped

# Sums of probabilities are rounded to the precision of the model, float16 at worst.
SUM_TOLERANCE = 5e-3


def in_unit_range(images: Tensor) -> tuple[str, str] | None:
    """Returns the required range and the range found, or None if all values are in [0, 1]. NaN is outside."""
    if not images.numel():
        return None
    lowest, highest = torch.stack(torch.aminmax(images.detach())).tolist()
    fits = lowest >= 0 and highest <= 1
    return None if fits else ('in [0, 1]', f'values from {lowest:g} to {highest:g}')


def finite(values: Tensor) -> tuple[str, str] | None:
    """Returns the requirement and the range found, or None if all values are finite."""
    if not values.numel():
        return None
    values = values.detach()
    # The lowest and the highest value are finite if all values are finite. They are NaN if any value is NaN.
    lowest, highest = torch.stack([values.amin(), values.amax()]).tolist()
    return None if math.isfinite(lowest) and math.isfinite(highest) else ('finite', f'{lowest:g} to {highest:g}')


# Types of the arguments of public entries. A check of values takes one reduction and one wait for the device.
Images = Annotated[Tensor, Shaped('N C h w', FLOATS, in_unit_range)]
Image = Annotated[Tensor, Shaped('C h w', FLOATS, in_unit_range)]
Labels = Annotated[Tensor, Shaped('N H W', ('int64',))]
Logits = Annotated[Tensor, Shaped('N K H W', ANY_FLOATS, finite)]
Mask = Annotated[Tensor, Shaped('N 1 h w', ('bool',))]


def check_range(images: Tensor, what: str = 'images', *, takes_nan: bool = False) -> None:
    """Raises UserError unless all values of a float tensor of any shape lie in [0, 1].

    Args:
        images: the tensor.
        what: the name of the tensor in the message.
        takes_nan: whether NaN passes, because the next computation shows it.
    """
    output = in_unit_range(images)
    if output is not None and not (takes_nan and 'nan' in output[1]):
        raise UserError(f'{what} must be {output[0]}; found {output[1]}')


def check_radius(threat: Threat, images: Tensor) -> None:
    """Raises UserError if the ball holds every image; then the radius is probably not in units of [0, 1]."""
    largest = threat.whole_range(images)
    if threat.radius > largest * (1 + 1e-6):
        size = 'x'.join(map(str, images.shape[1:]))
        raise UserError(
            f'the radius {threat.radius:g} of {type(threat).__name__} is more than the whole range of images of {size} '
            f'values in [0, 1], {largest:g}; radii are in units of images in [0, 1]'
        )


def check_predictions(predictions: Tensor, classes: int | None) -> None:
    """Raises UserError if a clean prediction is no class of the model.

    Args:
        predictions: (N, H, W) int64.
        classes: the model's number of classes; None if the model made no pass.
    """
    if classes is None or not predictions.numel():
        return
    lowest, highest = torch.stack(torch.aminmax(predictions)).tolist()
    if lowest < 0 or highest >= classes:
        raise UserError(
            f'clean_predictions must be classes of the model, 0 to {classes - 1}; found {lowest} to {highest}'
        )


def check_sigma(sigma: Any, owner: str = '') -> None:
    """Raises UserError unless σ is a positive number, at most the whole range of images in [0, 1].

    Args:
        sigma: standard deviation of noise.
        owner: the name of the owner of sigma, for the message.
    """
    name = f'{owner}: sigma' if owner else 'sigma'
    if isinstance(sigma, bool) or not isinstance(sigma, (int, float)) or not 0 < sigma < math.inf:
        raise UserError(f'{name} must be a positive number, in units of images in [0, 1]; found {sigma!r}')
    if sigma > 1:
        raise UserError(
            f'{name} must be at most 1, the whole range of images in [0, 1]; found {sigma:g}; '
            'divide a deviation of 8-bit values by 255'
        )


def check_statistics(mean: Sequence[float], std: Sequence[float], owner: str) -> None:
    """Raises UserError unless mean and std, one of each per channel, are those of images in [0, 1].

    Args:
        mean: the mean of a normalisation, per channel.
        std: the standard deviation of the normalisation, per channel.
        owner: the name of the object that normalises, for the message.
    """
    values = [*mean, *std]
    if len(mean) != len(std) or not all(math.isfinite(value) for value in values) or min(std, default=0) <= 0:
        raise UserError(f'{owner}: mean and std need one positive std per mean; found {mean} and {std}')
    if max(values) > 1 or min(mean) < -1:
        raise UserError(
            f'{owner}: mean and std must be those of images in [0, 1]; found {mean} and {std}; '
            'divide statistics of 8-bit images by 255'
        )


def checked_step_size(step_size: Any, threat: Threat | None, owner: str) -> float:
    """Returns a step size as a float, from a number or a text such as '1/255'.

    Warns if a step is longer than twice the radius.

    Args:
        step_size: length of a step in the threat's norm.
        threat: the budget; None for L2 without a ball.
        owner: the name of the attack that takes the steps, for the message.

    Raises:
        UserError: the step size is not a positive number, or it exceeds the whole range of images under Linf.
    """
    value = parse_radius(step_size, what='step_size')
    if value == 0:
        raise UserError(f'{owner}: step_size 0 moves nothing; give a positive one')
    if isinstance(threat, Linf) and value > 1:
        raise UserError(
            f"{owner}: step_size {value:g} is more than the whole range [0, 1]; write it as '1/255', not 1, "
            'in units of images in [0, 1]'
        )
    if threat is not None and value > 2 * threat.radius:
        warnings.warn(
            f'{owner}: step_size {value:g} is more than twice the radius {threat.radius:g}, so every step leads across '
            'the whole budget; is one of them mistyped?',
            stacklevel=3,
        )
    return value


def are_probabilities(logits: Tensor, *, lowest: float | None = None, highest: float | None = None) -> bool:
    """Returns whether the outputs of a model are not negative and sum to 1 over the classes.

    Args:
        logits: (N, K, ...) outputs of the model.
        lowest: the lowest output; measured if None.
        highest: the highest output; measured if None.
    """
    logits = logits.detach()
    if logits.shape[1] < 2 or not logits.numel():
        return False
    if lowest is None or highest is None:
        lowest, highest = torch.stack(torch.aminmax(logits)).tolist()
    if lowest < 0 or highest > 1 + SUM_TOLERANCE:
        return False
    return float((logits.float().sum(1) - 1).abs().max()) <= SUM_TOLERANCE


def warn_of_probabilities(logits: Tensor, *, lowest: float | None = None, highest: float | None = None) -> bool:
    """Returns whether a model returns class probabilities in place of logits, and warns if so.

    The arguments are those of ``are_probabilities``.
    """
    if not are_probabilities(logits, lowest=lowest, highest=highest):
        return False
    warnings.warn(
        'the outputs of the model are not negative and sum to 1 over the classes, so they seem to be probabilities; '
        'attacks and certificates take logits, and are too weak or wrong on probabilities: leave out the softmax',
        stacklevel=2,
    )
    return True
