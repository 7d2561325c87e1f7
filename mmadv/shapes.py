"""Annotations of tensors and arrays: dtype, shape and values, and sizes that the arguments of one call share.

The module is pure Python. It checks any value with ``shape`` and ``dtype``, so both torch and numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

from mmadv.fields import Judge, Mismatch, Seed, Sized, Sizes, expected

FLOATS = ('float32', 'float64')
ANY_FLOATS = ('float16', 'bfloat16', *FLOATS)
INTEGERS = ('uint8', 'int8', 'uint16', 'int16', 'uint32', 'int32', 'uint64', 'int64')
NUMBERS = (*ANY_FLOATS, *INTEGERS)
NAMES = {ANY_FLOATS: 'floats', INTEGERS: 'integers', NUMBERS: 'numbers'}


@dataclass(frozen=True)
class Shaped(Judge):
    """In ``Annotated``, for a tensor or array: its dtype, its dimensions, and the condition on its values.

    A letter is a size. It is the same size in all arguments of one call. Only the batch's dimension ``N`` may be empty.
    A number is an exact size, ``_`` is any size, and ``*S`` is any number of dimensions.

    Args:
        dims: names of the dimensions, such as 'N C h w'; several texts if the value may have one of several shapes.
        dtypes: names of the dtypes.
        problem: function that returns the condition on the values and the values found, None if they fit.
    """

    dims: str | tuple[str, ...]
    dtypes: tuple[str, ...]
    problem: Callable[[Any], tuple[str, str] | None] | None = None

    def judge(self, value: Any, path: str, hint: Any) -> Mismatch | None:
        """Returns where a tensor or array has another dtype or shape, or values that do not fit."""
        if str(value.dtype).removeprefix('torch.') not in self.dtypes or self._sizes(value.shape) is None:
            return Mismatch(path, expected(hint), value, _described(value))
        found = self.problem(value) if self.problem is not None else None
        return found and Mismatch(path, found[0], value, found[1])

    def compare(self, value: Any, name: str, sizes: Sizes) -> Mismatch | None:
        """Returns where a value's sizes differ from those of earlier arguments; adds the value's to ``sizes``."""
        if not getattr(value, 'shape', ()):  # a number fits every size
            return None
        return _compared((self._sizes(value.shape) or {}).items(), self._shapes, value, name, sizes)

    def __str__(self) -> str:
        return f'of {NAMES.get(self.dtypes) or " or ".join(self.dtypes)}, {self._shapes()}'

    def _shapes(self) -> str:
        names = [text.split() for text in self._texts()]
        return 'of shape ' + ' or '.join(f'({", ".join(one)}{"," if len(one) == 1 else ""})' for one in names)

    def _texts(self) -> tuple[str, ...]:
        return (self.dims,) if isinstance(self.dims, str) else self.dims

    def _sizes(self, shape: Sequence[int]) -> dict[str, Any] | None:
        """Returns letter -> size if a shape fits, else None."""
        found = (_sizes(text, tuple(shape)) for text in self._texts())
        return next((sizes for sizes in found if sizes is not None), None)


@dataclass(frozen=True)
class PerImage(Sized):
    """In ``Annotated``, for a sequence: it has one item for each image."""

    def compare(self, value: Any, name: str, sizes: Sizes) -> Mismatch | None:
        """Returns where a sequence is longer or shorter than earlier arguments; adds its length to ``sizes``."""
        found = _compared([('N', len(value))], str, value, name, sizes)
        number, owner = sizes['N']
        return found and Mismatch('', f'one for each image, {number} as {owner} has them', value, str(len(value)))


Seeds = Annotated[Sequence[Seed], PerImage()]


def _compared(
    pairs: Iterable[tuple[str, Any]], shape: Callable[[], str], value: Any, name: str, sizes: Sizes
) -> Mismatch | None:
    for letter, size in pairs:
        before, owner = sizes.setdefault(letter, (size, name))
        if before != size:
            wanted = f'{shape()} with {letter.removeprefix("*")} = {before}, as {owner} has it'
            return Mismatch('', wanted, value, _described(value) if hasattr(value, 'shape') else None)
    return None


def _described(value: Any) -> str:
    return f'{str(value.dtype).removeprefix("torch.")} of shape {tuple(value.shape)}'


@lru_cache
def _sizes(text: str, shape: tuple[int, ...]) -> dict[str, Any] | None:
    """Returns name -> size if a shape has the dimensions that a text names, else None."""
    names = text.split()
    at = next((n for n, name in enumerate(names) if name.startswith('*')), None)
    pairs: list[tuple[str, Any]] = []
    if at is not None:
        end = len(shape) - (len(names) - at - 1)
        if end < at:
            return None
        pairs = [(names[at], shape[at:end])]
        names, shape = names[:at] + names[at + 1 :], shape[:at] + shape[end:]
    if len(names) != len(shape):
        return None
    bound: dict[str, Any] = {}
    for name, size in (*zip(names, shape, strict=True), *pairs):
        holds_nothing = 0 in size if isinstance(size, tuple) else size == 0
        if (holds_nothing and name != 'N') or (name.isdigit() and int(name) != size):
            return None
        if name not in ('_', '*') and not name.isdigit() and bound.setdefault(name, size) != size:
            return None
    return bound
