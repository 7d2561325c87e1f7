"""Projected gradient descent with momentum. Its step size and ball follow a schedule that is fixed in advance."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mmadv.attacks.annealed_margin import AnnealedMargin
from mmadv.attacks.attack import build_parts
from mmadv.attacks.attack_context import AttackContext
from mmadv.attacks.gradient_attack import GradientAttack
from mmadv.attacks.objectives import Objective
from mmadv.attacks.result import AttackOutput
from mmadv.attacks.schedules import CosineSchedule, Schedule
from mmadv.attacks.search import Search
from mmadv.attacks.steps import warn_of_short_steps
from mmadv.attacks.threat import Threat
from mmadv.errors import UserError, nearest
from mmadv.registry import ATTACKS

KEEP = ('lowest_accuracy', 'last')


@ATTACKS.register
@dataclass(frozen=True, kw_only=True)
class ScheduledPGD(GradientAttack):
    """PGD with momentum under a schedule of steps and radii.

    z = P(x_i + step · direction), x_{i+1} = P(x_i + (1 - momentum)(z - x_i) + momentum (x_i - x_{i-1})). The first
    step has no momentum. P projects on the schedule's ball and on [0, 1]. Only iterates in the ball of the radius
    itself are kept. Step i of n has the progress i / n. With the annealed margin, this attack is AMA.

    Args:
        threat: the budget, or its config.
        steps: iterations, one gradient each.
        objective: the objective to maximise, or its config.
        schedule: the schedule of step size and radius, or its config.
        momentum: share of the last move in the next move, in [0, 1).
        random_start: start from a random image of the schedule's first ball, not from the clean one.
        keep: the iterate to return: 'lowest_accuracy', the strongest in an evaluation, or 'last', as in training. With
            'lowest_accuracy', an image leaves the batch once an iterate in the ball of the radius itself has no pixel
            left to flip. One more forward pass scores the last iterate.
    """

    steps: int = 100
    objective: Objective = AnnealedMargin()
    schedule: Schedule = CosineSchedule()
    momentum: float = 0.5
    keep: str = 'lowest_accuracy'

    def __post_init__(self) -> None:
        build_parts(self, schedule=self.schedule)
        super().__post_init__()
        warn_of_short_steps(self.reach(), self.threat, 'ScheduledPGD')
        if not 0 <= self.momentum < 1:
            raise UserError(f'ScheduledPGD: momentum must lie in [0, 1); found {self.momentum}')
        if self.keep not in KEEP:
            raise UserError(f"ScheduledPGD: unknown keep '{self.keep}'{nearest(str(self.keep), KEEP)}")

    @property
    def keeps_strongest(self) -> bool:
        return self.keep == 'lowest_accuracy'

    @property
    def start_threat(self) -> Threat:
        return self.threat_at(0)

    def reach(self) -> float:
        """Returns the total length of all steps, in the threat's norm."""
        return self.threat.radius * sum(self.schedule.step_factor(step / self.steps) for step in range(self.steps))

    def threat_at(self, step: int) -> Threat:
        """Returns the ball of iterate number ``step``, from 0 to ``steps``."""
        return self.threat.scaled(self.schedule.radius_factor(step / self.steps))

    def run(self, context: AttackContext, start: Tensor | None = None) -> AttackOutput:
        if self.keep == 'last':
            return AttackOutput(self._last(context, self.first_iterate(context, start)))
        return self._lowest_accuracy(context, self.first_iterate(context, start))

    def _last(self, context: AttackContext, iterate: Tensor) -> Tensor:
        previous, scale = iterate, None
        for step in range(self.steps):
            gradient, scale = context.gradient(iterate, self.objective, step / self.steps, scale)
            iterate, previous = self._next(context.images, iterate, previous, gradient, step), iterate
        return iterate

    def _lowest_accuracy(self, context: AttackContext, iterate: Tensor) -> AttackOutput:
        search = Search(context, targeted=self.targeted)
        previous, scale = iterate, None
        for step in range(self.steps):
            evaluation = search.context.evaluate(
                iterate, self.objective, step / self.steps, gradient=True, track=False, scale=scale
            )
            gradient, scale = evaluation.gradient, evaluation.scale
            assert gradient is not None
            # Only iterates in the ball of the radius itself are kept.
            if self.schedule.radius_factor(step / self.steps) <= 1:
                remaining = search.drop_done(search.take(iterate, evaluation))
                if remaining is not None:
                    iterate, previous, gradient = iterate[remaining], previous[remaining], gradient[remaining]
                    scale = scale[remaining] if scale is not None else None
                if not len(search):
                    return search.result()
            iterate, previous = self._next(search.context.images, iterate, previous, gradient, step), iterate
            del evaluation, gradient  # before the next pass needs memory
        search.take(iterate, search.context.evaluate(iterate))
        return search.result()

    def _next(self, centre: Tensor, iterate: Tensor, previous: Tensor, gradient: Tensor, step: int) -> Tensor:
        threat, ahead = self.threat_at(step), self.threat_at(step + 1)
        step_size = self.schedule.step_factor(step / self.steps) * self.threat.radius
        moved = threat.project(threat.step(iterate, gradient, step_size), centre)
        if step == 0:
            return ahead.project(moved, centre)
        mixed = iterate + (1 - self.momentum) * (moved - iterate) + self.momentum * (iterate - previous)
        return ahead.project(threat.project(mixed, centre), centre)
