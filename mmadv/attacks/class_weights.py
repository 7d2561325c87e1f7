"""Class weights of a data set, for the masked balanced cross-entropy of SEA's later version."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from mmadv.errors import UserError, nearest

if TYPE_CHECKING:
    from mmadv.attacks.attack import Attack

A = TypeVar('A', bound='Attack')
# A placeholder for the weights of the evaluated data set. The evaluation replaces it.
DATASET = 'dataset'
# The constants of SEA's authors, background first: github.com/nmndeep/Robust-Segmentation, semseg/utils/utils.py.
PUBLISHED: dict[str, tuple[float, ...]] = {
    'voc_21': (
        0.0007, 0.0531, 0.1394, 0.05, 0.0814, 0.0575, 0.0256, 0.0312, 0.0198, 0.0626, 0.0382, 0.0457, 0.0212,
        0.0404, 0.0421, 0.0089, 0.0915, 0.0585, 0.0366, 0.0279, 0.0677,
    ),
    'ade20k_151': (
        2.5511e-05, 3.6983e-05, 4.757e-05, 6.6522e-05, 0.00011128, 0.00010635, 0.00016683, 0.00017398,
        0.00022595, 0.00026104, 0.00034525, 0.0003268, 0.00046724, 0.00027333, 0.00038664, 0.00051101,
        0.00046147, 0.00028707, 0.00048777, 0.00056734, 0.00052263, 0.00057571, 0.00079284, 0.00071656,
        0.00098619, 0.00073393, 0.00060752, 0.00060696, 0.0010648, 0.0015916, 0.00074704, 0.0013956, 0.0010427,
        0.0016245, 0.0013812, 0.0012803, 0.0015659, 0.0023384, 0.0026498, 0.0021948, 0.0019984, 0.0021434,
        0.0022654, 0.0023339, 0.0026016, 0.0029368, 0.0024439, 0.0025844, 0.0023346, 0.001017, 0.0027078,
        0.0037222, 0.0030739, 0.0030697, 0.0050181, 0.0047774, 0.0020477, 0.0031477, 0.0028421, 0.0037206,
        0.0025296, 0.0021699, 0.0028066, 0.002808, 0.0055795, 0.0040186, 0.0048758, 0.0035471, 0.0031513,
        0.0030316, 0.0039002, 0.0050847, 0.0048401, 0.0059311, 0.0053158, 0.0050188, 0.0040362, 0.0044585,
        0.0052076, 0.0044833, 0.0055491, 0.0057523, 0.0055545, 0.0087588, 0.0050301, 0.0054497, 0.0076726,
        0.0051451, 0.0079943, 0.0044696, 0.0074416, 0.0067389, 0.007875, 0.0055496, 0.012515, 0.0051635,
        0.0081806, 0.0099495, 0.010522, 0.0060337, 0.011848, 0.010531, 0.0060837, 0.0080876, 0.01175, 0.0082409,
        0.0068528, 0.0081382, 0.0087929, 0.0076437, 0.0057786, 0.013009, 0.018844, 0.010949, 0.0042059,
        0.0057906, 0.012998, 0.014171, 0.0070287, 0.0090963, 0.010115, 0.01051, 0.013813, 0.012319, 0.014154,
        0.015693, 0.015035, 0.01112, 0.016888, 0.0073436, 0.014521, 0.0093029, 0.014782, 0.011918, 0.017509,
        0.020762, 0.014547, 0.020312, 0.010543, 0.018876, 0.036659, 0.020046, 0.022035, 0.014011, 0.015645,
        0.011985, 0.010001, 0.027073, 0.021668, 0.018419, 0.021877,
    ),
}  # fmt: skip


def checked_class_weights(weights: str | Sequence[float], owner: str) -> str | tuple[float, ...]:
    """Returns class weights as an objective keeps them: a name, or a tuple of floats.

    Args:
        weights: a key of ``PUBLISHED``, ``'dataset'``, or one number for each class.
        owner: the name of the objective that takes the weights, for the message.

    Raises:
        UserError: the name is unknown, a number is negative or not finite, or all numbers are zero.
    """
    if isinstance(weights, str):
        if weights != DATASET and weights not in PUBLISHED:
            raise UserError(
                f"{owner}: unknown class_weights '{weights}'{nearest(weights, [DATASET, *PUBLISHED])}; or give one "
                'number for each class'
            )
        return weights
    try:
        values = tuple(float(weight) for weight in weights)
    except (TypeError, ValueError):
        raise UserError(
            f'{owner}: class_weights must be a name or one number for each class; found {weights!r}'
        ) from None
    if not all(math.isfinite(value) and value >= 0 for value in values) or not any(values):
        raise UserError(f'{owner}: class_weights must be finite, none negative and not all zero; found {values}')
    return values


def frequency_weights(pixels: Sequence[int]) -> tuple[float, ...]:
    """Returns the inverse frequency of each class, divided by the sum of all inverse frequencies.

    The published constants are computed in the same way. A class without a pixel has weight 0 and is not in the sum.
    Weights are rounded to six digits.

    Args:
        pixels: number of pixels of each class in the whole data set.

    Raises:
        UserError: no class has a pixel.

    >>> frequency_weights([300, 100, 0])
    (0.25, 0.75, 0.0)
    """
    if not any(pixels):
        raise UserError('no class has a labelled pixel, so class weights cannot be made of label frequencies')
    inverse = [1 / count if count else 0.0 for count in pixels]
    return tuple(float(f'{value / sum(inverse):.6g}') for value in inverse)


def with_class_weights(attack: A, weights: str | Sequence[float]) -> A:
    """Returns the attack with ``weights`` in place of ``'dataset'`` in each of its objectives."""
    return _replaced(attack, weights)


def needs_class_weights(attack: Attack | None) -> bool:
    """Returns whether an objective of the attack needs the weights of the data set."""
    return DATASET in class_weights_of(attack)


def class_weights_of(attack: Attack | None) -> list[str | tuple[float, ...]]:
    """Returns the class weights of every objective of an attack that has class weights."""
    return [part.class_weights for part in _parts(attack) if hasattr(part, 'class_weights')]


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _parts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _parts(item)
    elif dataclasses.is_dataclass(value):
        yield value
        for field in dataclasses.fields(value):
            yield from _parts(getattr(value, field.name))


def _replaced(value: Any, weights: str | Sequence[float]) -> Any:
    if isinstance(value, Mapping):
        return {key: _replaced(item, weights) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_replaced(item, weights) for item in value)
    if not dataclasses.is_dataclass(value) or not any(
        getattr(part, 'class_weights', 0) == DATASET for part in _parts(value)
    ):
        return value
    changes = {field.name: _replaced(getattr(value, field.name), weights) for field in dataclasses.fields(value)}
    if changes.get('class_weights') == DATASET:
        changes['class_weights'] = weights
    return dataclasses.replace(value, **changes)  # type: ignore[type-var]  # an object, never a class
