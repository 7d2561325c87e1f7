"""The objects that a checkpoint may name besides tensors: numpy's arrays, and mmengine's log history without code."""

from __future__ import annotations

from collections.abc import Callable
from pickle import UnpicklingError
from typing import Any

import numpy as np

_HISTORY = 'mmengine.logging.history_buffer.HistoryBuffer'
_STATISTICS = ('min', 'max', 'current', 'mean')


class InertHistory:
    """Replaces mmengine's HistoryBuffer if only the weights are needed: it holds the data and runs no code."""

    min = max = current = mean = None


def safe_globals(history: type = InertHistory) -> list[Any]:
    """Returns the allow-list for ``torch.serialization.safe_globals``.

    mmengine's own list holds Python's ``getattr``. With it, a file can reach any attribute and so run code. In this
    list, ``getattr`` returns only the four statistics of the log history, which mmengine's files name.

    Args:
        history: the class of the log histories; to resume a run, give mmengine's own class.
    """
    core_module: Any = np._core if hasattr(np, '_core') else np.core
    multiarray = core_module.multiarray
    arrays: list[Any] = [np.ndarray, np.dtype, *{type(np.dtype(code)) for code in '?bBhHiIlLqQefdFDSU'}]
    functions: list[tuple[Callable, str]] = [
        (getattr(multiarray, name), f'numpy.{core}.multiarray.{name}')
        for core in ('core', '_core')
        for name in ('_reconstruct', 'scalar')
    ]

    def statistic_of_history(owner: Any, name: str) -> Any:
        if owner is not history or name not in _STATISTICS:
            raise UnpicklingError(f'getattr of {name!r} is not allowed')
        return getattr(history, name)

    return [*arrays, *functions, (history, _HISTORY), (statistic_of_history, 'builtins.getattr')]
