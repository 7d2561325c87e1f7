"""Input conventions: the mean and standard deviation that a backbone's weights were trained with.

With images of another convention, a network keeps some clean accuracy but loses its robustness, and no error shows
this. So every checkpoint and backbone states its convention by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from mmadv.errors import UserError, nearest

# Half a grey level: the rounding of the values in configs.
TOLERANCE = 0.5 / 255


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputConvention:
    """Normalisation of RGB images in [0, 1]: (image - mean) / std.

    Attributes:
        name: the name in configs.
        mean, std: the mean and standard deviation of each channel, for images in [0, 1].
    """

    name: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def agrees(self, mean: Sequence[float], std: Sequence[float]) -> bool:
        """Returns whether mean and std (for images in [0, 1]) are this convention's, up to rounding.

        >>> CONVENTIONS['unit'].agrees([0, 0, 0], [1, 1, 1])
        True
        """
        pairs = [*zip(self.mean, mean, strict=True), *zip(self.std, std, strict=True)]
        return all(abs(own - other) <= TOLERANCE for own, other in pairs)

    def settings(self) -> str:
        """Returns the arguments of a SegDataPreProcessor, which takes images in [0, 255].

        >>> CONVENTIONS['unit'].settings()
        'mean=[0, 0, 0], std=[255, 255, 255]'
        """
        mean, std = (', '.join(f'{round(255 * value, 3):g}' for value in values) for values in (self.mean, self.std))
        return f'mean=[{mean}], std=[{std}]'


CONVENTIONS = {
    convention.name: convention
    for convention in (
        InputConvention(name='unit', mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        InputConvention(name='imagenet', mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        InputConvention(name='inception', mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    )
}


def convention(name: str) -> InputConvention:
    """Returns the convention with this name; if there is none, raises UserError with the nearest name."""
    if name not in CONVENTIONS:
        raise UserError(f"unknown input_convention '{name}'{nearest(str(name), CONVENTIONS)}")
    return CONVENTIONS[name]


def name_of(mean: Sequence[float], std: Sequence[float]) -> str | None:
    """Returns the name of the convention with this mean and std (for images in [0, 1]); None if there is none."""
    if len(mean) != 3 or len(std) != 3:
        return None
    return next((name for name, known in CONVENTIONS.items() if known.agrees(mean, std)), None)
