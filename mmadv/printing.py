"""Text of others on a terminal: names in files and configs may hold control characters that would act there."""

from __future__ import annotations

from typing import Any

LONGEST = 60


def printable(text: str, *, lines: bool = False) -> str:
    r"""Returns a text whose control characters, line separators and direction marks are written as escapes.

    A name then neither moves the cursor nor begins a line of its own, such as one that looks like an error of ours.

    >>> printable('class\x1b[2J\nerror: all is lost')
    'class\\x1b[2J\\nerror: all is lost'

    Args:
        text: any.
        lines: leave newlines and tabs, of a text that has several lines by design.
    """
    if text.isprintable():
        return text
    left = '\n\t' if lines else ''
    return ''.join(sign if sign.isprintable() or sign in left else _escape(sign) for sign in text)


def shown(value: Any) -> str:
    """Returns a value as a message quotes it: short, on one line, a text marked as one.

    >>> shown('no'), shown([1, 2])
    ("'no' (text)", '[1, 2]')
    """
    try:
        text = repr(value)
    except Exception as error:  # a class of the user's, or a number with too many digits to be written
        text = f'a {type(value).__name__} that cannot be shown ({type(error).__name__})'
    text = printable(text)
    text = text if len(text) <= LONGEST else f'{text[: LONGEST - 3]}...'
    return f'{text} (text)' if isinstance(value, str) else text


def _escape(sign: str) -> str:
    return sign.encode('unicode_escape').decode('ascii')
