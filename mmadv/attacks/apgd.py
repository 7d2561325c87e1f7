"""APGD (Croce and Hein, 2020) on segmentation objectives, as SEA runs it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from mmadv.attacks.attack_context import AttackContext
from mmadv.attacks.gradient_attack import GradientAttack
from mmadv.attacks.objectives import MaskedCrossEntropy, Objective
from mmadv.attacks.result import AttackOutput
from mmadv.attacks.search import Search
from mmadv.registry import ATTACKS

RISE_SHARE = 0.75
MOMENTUM = 0.75


class StepSchedule:
    """Decides when APGD halves an image's step.

    The first checkpoint comes after 0.22 n iterations. The later intervals shrink by 0.03 n each, down to 0.06 n (each
    number is at least 1). A checkpoint halves an image's step in two cases. First, at most 75 % of the interval's
    iterations raised the tracked loss. Second, the last checkpoint did not halve, and the best loss has not risen
    since.

    The published code compares the first iteration's loss with an empty history slot, which holds zero. This class
    does the same, to get the same numbers.

    Args:
        steps: n.
        initial_loss: (N,) tracked loss of the starting points.
    """

    def __init__(self, steps: int, initial_loss: Tensor) -> None:
        self.interval = max(int(0.22 * steps), 1)
        self.shortest = max(int(0.06 * steps), 1)
        self.shrink = max(int(0.03 * steps), 1)
        self.since = 0
        self.rises = torch.zeros_like(initial_loss)
        self.previous_loss = torch.zeros_like(initial_loss)
        self.checked_best = initial_loss
        self.halved = torch.ones_like(initial_loss, dtype=torch.bool)

    def restrict(self, keep: Tensor) -> None:
        """Drops the images for which ``keep`` (N,) is False."""
        self.rises, self.previous_loss = self.rises[keep], self.previous_loss[keep]
        self.checked_best, self.halved = self.checked_best[keep], self.halved[keep]

    def update(self, loss: Tensor, best_loss: Tensor) -> Tensor | None:
        """Returns which images halve their step, (N,) bool, if the iteration is a checkpoint; otherwise None.

        Args:
            loss: (N,) tracked loss of the iteration.
            best_loss: (N,) highest tracked loss so far.
        """
        self.rises += loss > self.previous_loss
        self.previous_loss = loss
        self.since += 1
        if self.since < self.interval:
            return None
        oscillates = self.rises <= RISE_SHARE * self.interval
        stagnates = ~self.halved & (self.checked_best >= best_loss)
        self.halved = oscillates | stagnates
        self.checked_best = best_loss
        self.since = 0
        self.rises = torch.zeros_like(loss)
        self.interval = max(self.interval - self.shrink, self.shortest)
        return self.halved


@dataclass
class _State:
    """The images still under attack, row by row."""

    iterate: Tensor
    previous: Tensor
    gradient: Tensor
    step_size: Tensor
    best_iterate: Tensor
    best_gradient: Tensor
    best_loss: Tensor

    def restrict(self, keep: Tensor) -> None:
        for item in dataclasses.fields(self):
            setattr(self, item.name, getattr(self, item.name)[keep])


@ATTACKS.register
@dataclass(frozen=True, kw_only=True)
class APGD(GradientAttack):
    """Auto-PGD at one radius. It chooses its step size itself and keeps the iterate of lowest accuracy.

    The step follows the objective's gradient. The schedule of step sizes follows the objective's tracked loss. An image
    leaves the batch once it has no pixel left to flip.

    Args:
        threat: the budget, or its config.
        steps: iterations, one gradient each; the attack makes one more forward pass.
        objective: the objective to maximise, or its config.
        random_start: start from a random image of the budget, not from the clean one.
    """

    steps: int = 100
    objective: Objective = MaskedCrossEntropy()

    @property
    def keeps_strongest(self) -> bool:
        return True

    def run(self, context: AttackContext, start: Tensor | None = None) -> AttackOutput:
        search = Search(context, targeted=self.targeted)
        state, schedule, undone = self._begin(search, self.first_iterate(context, start))
        del start
        for step in range(self.steps):
            remaining = search.drop_done(undone)
            if remaining is not None:
                state.restrict(remaining)
                schedule.restrict(remaining)
            if not len(search):
                break
            iterate = self._next(state, search.context.images, momentum=step > 0)
            moves = step + 1 < self.steps
            evaluation = search.context.evaluate(iterate, self.objective, (step + 1) / self.steps, gradient=moves)
            undone = search.take(iterate, evaluation)
            if moves:
                assert evaluation.loss is not None and evaluation.gradient is not None
                self._advance(state, schedule, iterate, evaluation.gradient, evaluation.loss)
        return search.result()

    def _begin(self, search: Search, start: Tensor) -> tuple[_State, StepSchedule, Tensor]:
        evaluation = search.context.evaluate(start, self.objective, 0.0, gradient=True)
        assert evaluation.loss is not None and evaluation.gradient is not None
        step_size = torch.full((len(search), 1, 1, 1), 2 * self.threat.radius, dtype=start.dtype, device=start.device)
        gradient, loss = evaluation.gradient, evaluation.loss
        state = _State(start, start, gradient, step_size, start, gradient, loss)
        return state, StepSchedule(self.steps, loss), search.take(start, evaluation)

    def _next(self, state: _State, centre: Tensor, *, momentum: bool) -> Tensor:
        threat, iterate = self.threat, state.iterate
        moved = threat.project(threat.step(iterate, state.gradient, state.step_size), centre)
        if not momentum:
            return moved
        mixed = iterate + MOMENTUM * (moved - iterate) + (1 - MOMENTUM) * (iterate - state.previous)
        return threat.project(mixed, centre)

    @staticmethod
    def _advance(state: _State, schedule: StepSchedule, iterate: Tensor, gradient: Tensor, loss: Tensor) -> None:
        state.previous, state.iterate, state.gradient = state.iterate, iterate, gradient
        rises = loss > state.best_loss
        chosen = rises.view(-1, 1, 1, 1)
        state.best_iterate = torch.where(chosen, iterate, state.best_iterate)
        state.best_gradient = torch.where(chosen, gradient, state.best_gradient)
        state.best_loss = torch.where(rises, loss, state.best_loss)
        halves = schedule.update(loss, state.best_loss)
        if halves is not None:
            chosen = halves.view(-1, 1, 1, 1)
            state.step_size = torch.where(chosen, state.step_size / 2, state.step_size)
            state.iterate = torch.where(chosen, state.best_iterate, state.iterate)
            state.gradient = torch.where(chosen, state.best_gradient, state.gradient)
