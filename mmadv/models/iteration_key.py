"""The key from which a training step derives random choices, so that a resumed run makes new choices."""

from __future__ import annotations

import torch
from mmengine.logging import MessageHub


class IterationKey:
    """Gives keys (seed, iteration, call within the iteration).

    Every call gets another key. All processes get the same keys. Without a runner, the seed is torch's initial seed,
    and only the calls are counted.
    """

    def __init__(self) -> None:
        self._iteration: int | None = None
        self._calls = 0

    def next(self) -> tuple[int, int, int]:
        """Returns the key of this call."""
        hub = MessageHub.get_current_instance()
        seed, iteration = hub.get_info('seed'), hub.get_info('iter')
        if iteration != self._iteration:
            self._iteration, self._calls = iteration, 0
        key = (torch.initial_seed() if seed is None else seed, iteration or 0, self._calls)
        self._calls += 1
        return key
