"""UserError, the exception for a mistake of the user, not of the code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in the user's input: config, file, value, data or model.

    The message is one sentence. It names the file or key, the value found and the remedy. The command lines print the
    message without a traceback and exit with status 2.
    """


def nearest(word: str, known: Iterable[str]) -> str:
    """Returns ``"; did you mean 'x'?"`` for the nearest known name, or the list of known names.

    >>> nearest('linff', ['Linf', 'L2'])
    "; did you mean 'Linf'?"
    >>> nearest('banana', ['Linf', 'L2'])
    '; known are L2, Linf'
    """
    names = {name.lower(): name for name in known}
    match = difflib.get_close_matches(word.lower(), names, n=1)
    if match:
        return f"; did you mean '{names[match[0]]}'?"
    return '; known are ' + ', '.join(sorted(names.values()))
