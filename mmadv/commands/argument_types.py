"""Types of command-line arguments for argparse; their errors say what is expected and what was found."""

from __future__ import annotations

import argparse
import os
import re
import types
import typing
import unicodedata
from collections.abc import Callable
from typing import Annotated, Any

from mmadv.attacks import parse_radius
from mmadv.attacks.checks import check_sigma
from mmadv.errors import UserError
from mmadv.fields import NotNegative, Positive, Range, expected, mismatch
from mmadv.printing import quoted

# A larger count is a typing error: no run has as many images, steps or draws.
LARGEST_COUNT = 10**9
BOUNDED = {
    Positive: Annotated[int, Range(1, LARGEST_COUNT)],
    NotNegative: Annotated[int, Range(0, LARGEST_COUNT)],
}
# The most bytes that usual file systems allow for the name of a file.
LONGEST_NAME = 255
# Control characters, line and paragraph separators, and surrogates, which stand for bytes that are not UTF-8.
UNPRINTABLE = ('Cc', 'Zl', 'Zp', 'Cs')


def text(word: str) -> str:
    """Returns the word, checked to be a name or a path.

    Raises:
        ArgumentTypeError: the word is empty or too long, or has characters that a terminal cannot show.
    """
    if not word.strip():
        raise argparse.ArgumentTypeError(f'must not be empty; found {quoted(word)}')
    if any(unicodedata.category(sign) in UNPRINTABLE for sign in word):
        raise argparse.ArgumentTypeError(f'must be text of UTF-8 without control characters; found {quoted(word)}')
    if any(len(os.fsencode(name)) > LONGEST_NAME for name in word.split(os.sep)):
        raise argparse.ArgumentTypeError(f'must be a name of {LONGEST_NAME} bytes at most; found {quoted(word)}')
    return word


def number(hint: Any) -> Callable[[str], Any]:
    """Returns the argparse type for numbers that fit an annotation, such as ``Positive`` or ``Share``.

    >>> number(Positive)('3')
    3
    """
    hint = BOUNDED.get(hint, hint)
    kind = int if base_type(hint) is int else float

    def convert(word: str) -> Any:
        value: Any = word
        if kind is float or re.fullmatch(r'[+-]?\d{1,30}', word, re.ASCII):
            try:
                value = kind(word)
            except ValueError:
                value = word
        if mismatch(value, hint) is not None:
            raise argparse.ArgumentTypeError(f'must be {expected(hint)}; found {quoted(word)}')
        return value

    return convert


def radius(word: str) -> str:
    """Returns the text of a radius or step size unchanged; raises ArgumentTypeError for any other text."""
    try:
        parse_radius(word, what='')
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error).strip()) from None
    return word


def positive_radius(word: str) -> str:
    """Returns the text of a positive radius or step size unchanged; raises ArgumentTypeError for any other text."""
    if parse_radius(radius(word)) == 0:
        raise argparse.ArgumentTypeError(f'must be positive; found {quoted(word)}')
    return word


def sigma(word: str) -> float:
    """Returns a noise standard deviation for images in [0, 1]; raises ArgumentTypeError outside (0, 1]."""
    try:
        value = float(word)
        check_sigma(value)
    except ValueError:  # from float(), or a UserError
        raise argparse.ArgumentTypeError(
            f'must be a number in (0, 1], in units of images in [0, 1]; found {quoted(word)}'
        ) from None
    return value


def seed(word: str) -> int:
    """Returns a seed; raises ArgumentTypeError if NumPy's generators do not accept it."""
    return number(Annotated[int, Range(0, 2**32 - 1)])(word)


def base_type(hint: Any) -> Any:
    """Returns the annotated type; for an optional type, the one beside None."""
    inner = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
    if typing.get_origin(inner) not in (typing.Union, types.UnionType):
        return inner
    parts = [part for part in typing.get_args(inner) if part is not type(None)]
    return base_type(parts[0])


positive = number(Positive)
not_negative = number(NotNegative)
