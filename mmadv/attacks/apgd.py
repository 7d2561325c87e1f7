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
from mmadv.attacks.threat import L1
from mmadv.registry import ATTACKS

RISE_SHARE = 0.75
MOMENTUM = 0.75
# Under L1: the share of the values below which a best iterate counts as sparser, what steps and shares are divided by,
# and the shortest step as a share of the radius.
SPARSER, SHRINK, SHORTEST = 0.95, 1.5, 0.1


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


class SparseSchedule:
    """Decides steps and their sparsity under L1 (Croce and Hein, Mind the box, ICML 2021, section 4).

    A step changes the values with the largest gradient. Every 0.04 n iterations, their share becomes the share of the
    values that the best iterate has changed, divided by 1.5. If the best iterate has become sparser by 5 % or more, the
    step has the length of the radius again, and the search goes on at the best iterate. Otherwise the step is divided
    by 1.5, down to a tenth of the radius.

    Args:
        steps: n.
        threat: the budget.
        images: (N, C, h, w) clean images.
    """

    def __init__(self, steps: int, threat: L1, images: Tensor) -> None:
        self.interval = max(int(0.04 * steps), 1)
        self.since = 0
        self.threat = threat
        self.values = threat.values(images).to(images.dtype).expand(len(images), 1, 1, 1).flatten()
        self.sparsity = self.values
        self.density = torch.full_like(self.values, threat.density)

    def restrict(self, keep: Tensor) -> None:
        """Drops the images for which ``keep`` (N,) is False."""
        self.values, self.sparsity, self.density = self.values[keep], self.sparsity[keep], self.density[keep]

    def next(self, iterate: Tensor, gradient: Tensor, step_size: Tensor, centre: Tensor) -> Tensor:
        """Returns the next iterate, (N, C, h, w)."""
        moved = self.threat.sparse_step(iterate, gradient, step_size, self.density)
        return self.threat.project(moved, centre)

    def update(self, best_iterate: Tensor, centre: Tensor) -> Tensor | None:
        """Returns which images have become sparser, (N,) bool, if the iteration is a checkpoint; otherwise None."""
        self.since += 1
        if self.since < self.interval:
            return None
        self.since = 0
        sparsity = (best_iterate != centre).flatten(1).sum(1).to(self.values)
        sparser = sparsity < SPARSER * self.sparsity
        self.sparsity, self.density = sparsity, sparsity / self.values / SHRINK
        return sparser


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

    def move_to(self, iterate: Tensor) -> None:
        """Takes the next iterate, which has no gradient yet."""
        self.previous, self.iterate = self.iterate, iterate
        # The memory of the old gradient is free for the pass that computes the next one.
        self.gradient = self.best_gradient

    def note(self, gradient: Tensor, loss: Tensor) -> None:
        """Takes gradient and tracked loss of the iterate."""
        self.gradient = gradient
        rises = loss > self.best_loss
        chosen = rises.view(-1, 1, 1, 1)
        self.best_iterate = torch.where(chosen, self.iterate, self.best_iterate)
        self.best_gradient = torch.where(chosen, gradient, self.best_gradient)
        self.best_loss = torch.where(rises, loss, self.best_loss)

    def back_to_best(self, chosen: Tensor) -> None:
        """Moves the images for which ``chosen`` (N, 1, 1, 1) is True back to their best iterates."""
        self.iterate = torch.where(chosen, self.best_iterate, self.iterate)
        self.gradient = torch.where(chosen, self.best_gradient, self.gradient)


@ATTACKS.register
@dataclass(frozen=True, kw_only=True)
class APGD(GradientAttack):
    """Auto-PGD at one radius. It chooses its step size itself and keeps the iterate of lowest accuracy.

    Under L1 it takes the sparse steps of ``SparseSchedule``.

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
            if isinstance(schedule, SparseSchedule):
                state.move_to(schedule.next(state.iterate, state.gradient, state.step_size, search.context.images))
            else:
                state.move_to(self._next(state, search.context.images, momentum=step > 0))
            undone = self._visit(search, state, schedule, step)
        return search.result()

    def _visit(self, search: Search, state: _State, schedule: StepSchedule | SparseSchedule, step: int) -> Tensor:
        """Evaluates the iterate, adapts the step, and returns which images are not yet done, (n,) bool."""
        moves = step + 1 < self.steps
        evaluation = search.context.evaluate(state.iterate, self.objective, (step + 1) / self.steps, gradient=moves)
        undone = search.take(state.iterate, evaluation)
        if moves:
            assert evaluation.loss is not None and evaluation.gradient is not None
            state.note(evaluation.gradient, evaluation.loss)
            if isinstance(schedule, SparseSchedule):
                self._adapt(state, schedule.update(state.best_iterate, search.context.images))
            else:
                self._halve(state, schedule.update(evaluation.loss, state.best_loss))
        return undone

    def _begin(self, search: Search, start: Tensor) -> tuple[_State, StepSchedule | SparseSchedule, Tensor]:
        evaluation = search.context.evaluate(start, self.objective, 0.0, gradient=True)
        assert evaluation.loss is not None and evaluation.gradient is not None
        first = self.threat.radius * (1 if isinstance(self.threat, L1) else 2)
        step_size = torch.full((len(search), 1, 1, 1), first, dtype=start.dtype, device=start.device)
        gradient, loss = evaluation.gradient, evaluation.loss
        state = _State(start, start, gradient, step_size, start, gradient, loss)
        schedule: StepSchedule | SparseSchedule = StepSchedule(self.steps, loss)
        if isinstance(self.threat, L1):
            schedule = SparseSchedule(self.steps, self.threat, search.context.images)
        return state, schedule, search.take(start, evaluation)

    def _next(self, state: _State, centre: Tensor, *, momentum: bool) -> Tensor:
        threat, iterate = self.threat, state.iterate
        moved = threat.project(threat.step(iterate, state.gradient, state.step_size), centre)
        if not momentum:
            return moved
        mixed = iterate + MOMENTUM * (moved - iterate) + (1 - MOMENTUM) * (iterate - state.previous)
        return threat.project(mixed, centre)

    @staticmethod
    def _halve(state: _State, halves: Tensor | None) -> None:
        if halves is not None:
            chosen = halves.view(-1, 1, 1, 1)
            state.step_size = torch.where(chosen, state.step_size / 2, state.step_size)
            state.back_to_best(chosen)

    def _adapt(self, state: _State, sparser: Tensor | None) -> None:
        if sparser is not None:
            chosen, radius = sparser.view(-1, 1, 1, 1), self.threat.radius
            shorter = (state.step_size / SHRINK).clamp_min(SHORTEST * radius)
            state.step_size = torch.where(chosen, radius, shorter)
            state.back_to_best(chosen)
