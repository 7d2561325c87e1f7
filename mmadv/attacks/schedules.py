"""How an attack's step and ball change while it runs, in multiples of the radius."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from mmadv.errors import UserError
from mmadv.registry import SCHEDULES


@dataclass(frozen=True, kw_only=True)
class Schedule(ABC):
    """Step size and radius as functions of the share of the iterations that are done, in [0, 1]."""

    @abstractmethod
    def step_factor(self, progress: float) -> float:
        """Returns the step size, in multiples of the radius."""

    @abstractmethod
    def radius_factor(self, progress: float) -> float:
        """Returns the radius of the iterate's ball, in multiples of the radius; it is exactly 1 at the end."""


@SCHEDULES.register
@dataclass(frozen=True, kw_only=True)
class CosineSchedule(Schedule):
    """Steps that fall along half a cosine, in a ball that shrinks linearly and then stays.

    At progress t the step is lo + (hi - lo)(1 + cos πt) / 2, and the ball max(1, start - (start - 1) t / share).

    Args:
        steps: hi and lo, the step sizes at the start and at the end, in multiples of the radius.
        start: the ball at the start, in multiples of the radius, at least 1.
        share: share of the iterations after which the ball has the radius itself, in (0, 1].
    """

    steps: tuple[float, float] = (2.0, 0.02)
    start: float = 2.0
    share: float = 0.6

    def __post_init__(self) -> None:
        steps = tuple(float(value) for value in self.steps)
        if len(steps) != 2 or not 0 < steps[1] <= steps[0]:
            raise UserError(f'CosineSchedule: steps must be two positive numbers, the larger first; found {self.steps}')
        object.__setattr__(self, 'steps', steps)
        if not 1 <= self.start < math.inf:
            raise UserError(f'CosineSchedule: start must be at least 1; found {self.start}')
        if not 0 < self.share <= 1:
            raise UserError(f'CosineSchedule: share must lie in (0, 1]; found {self.share}')

    def step_factor(self, progress: float) -> float:
        high, low = self.steps
        return low + (high - low) * (1 + math.cos(math.pi * progress)) / 2

    def radius_factor(self, progress: float) -> float:
        # The small number corrects rounding: 3 of 5 iterations must count as a share of 0.6.
        if progress >= self.share - 1e-9:
            return 1.0
        return self.start - (self.start - 1) * progress / self.share
