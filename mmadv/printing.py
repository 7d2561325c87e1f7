"""Safe output of foreign text: names in files and configs may hold control characters that act on a terminal."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

LONGEST = 60


def printable(text: str, *, lines: bool = False) -> str:
    r"""Returns a text whose control characters, line separators and direction marks are written as escapes.

    A name can then neither move the cursor nor begin a new line, such as one that looks like an error of mmadv.

    >>> printable('class\x1b[2J\nerror: all is lost')
    'class\\x1b[2J\\nerror: all is lost'

    Args:
        text: any text.
        lines: whether to keep newlines and tabs, for a text that has several lines by design.
    """
    if text.isprintable():
        return text
    left = '\n\t' if lines else ''
    return ''.join(sign if sign.isprintable() or sign in left else _escape(sign) for sign in text)


def shown(value: Any) -> str:
    """Returns a value as a message quotes it: short, on one line, and marked as text if it is a string.

    >>> shown('no'), shown([1, 2])
    ("'no' (text)", '[1, 2]')
    """
    try:
        text = repr(value)
    except Exception as error:  # a class of the user, or a number with too many digits to print
        text = f'a {type(value).__name__} that cannot be shown ({type(error).__name__})'
    text = printable(text)
    text = text if len(text) <= LONGEST else f'{text[: LONGEST - 3]}...'
    return f'{text} (text)' if isinstance(value, str) else text


def quoted(word: str) -> str:
    r"""Returns a word of a command line as a message quotes it: short, on one line.

    >>> quoted('a\nb')
    "'a\\nb'"
    """
    text = printable(word)
    return f"'{text if len(text) <= LONGEST else f'{text[: LONGEST - 3]}...'}'"


@contextmanager
def escaped_messages() -> Iterator[None]:
    """Makes all warnings and log messages in the block printable, as both may quote foreign names.

    Line breaks stay, as messages have several lines by design. All lines of a warning but its first are indented, so
    that none looks like a message of mmadv.
    """
    format_warning, make_record = warnings.formatwarning, logging.getLogRecordFactory()

    def formatted(message: Any, *where: Any, **line: Any) -> str:
        text = printable(str(message), lines=True).replace('\n', '\n    ')
        return format_warning(text, *where, **line)

    def record(*arguments: Any, **settings: Any) -> logging.LogRecord:
        made = make_record(*arguments, **settings)
        # If the arguments do not fit the message, logging reports it.
        with suppress(TypeError, ValueError):
            made.msg, made.args = printable(made.getMessage(), lines=True), ()
        return made

    warnings.formatwarning = formatted
    logging.setLogRecordFactory(record)
    try:
        yield
    finally:
        warnings.formatwarning = format_warning
        logging.setLogRecordFactory(make_record)


def _escape(sign: str) -> str:
    return sign.encode('unicode_escape').decode('ascii')
