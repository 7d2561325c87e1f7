"""Projected gradient ascent with a fixed step size, and the attacks that are special cases of it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from mmadv.attacks.attack_context import AttackContext
from mmadv.attacks.checks import checked_step_size
from mmadv.attacks.gradient_attack import GradientAttack
from mmadv.attacks.objectives import BalancedCrossEntropy, CosineCrossEntropy, Objective
from mmadv.attacks.randomness import uniform_scalars
from mmadv.attacks.result import AttackOutput
from mmadv.attacks.search import Search
from mmadv.attacks.steps import scaled_step_size, warn_of_short_steps
from mmadv.attacks.threat import Threat
from mmadv.errors import UserError, nearest
from mmadv.fields import checked
from mmadv.registry import ATTACKS

KEEP = ('last', 'best_loss', 'lowest_accuracy')


@ATTACKS.register
@dataclass(frozen=True, kw_only=True)
class PGD(GradientAttack):
    """Projected gradient descent (Madry et al., 2018), in any norm and for any objective.

    Args:
        threat: the budget, or its config.
        steps: iterations, one gradient each.
        step_size: length of a step in the threat's norm, written like a radius. The default is
            max(radius / 4, 2.5 · radius / steps), at most the radius. A search in SEA's appendix B.1 found radius / 4
            for 300 iterations (2e-3 and 4e-3 at 2/255 and 4/255). A given step size scales with the radius: at another
            radius (``with_radius``, ``--eps``) it is the same share of that radius.
        objective: the objective to maximise, or its config.
        random_start: start from a random image of the budget, not from the clean one.
        random_step: multiply each image's step size by its own draw from U(0, 1).
        keep: the iterate to return. 'last', as in training; 'best_loss', by the objective's tracked loss; or
            'lowest_accuracy', the strongest in an evaluation. With 'lowest_accuracy' an image leaves the batch once it
            has no pixel left to flip. 'best_loss' and 'lowest_accuracy' cost one more forward pass.
    """

    step_size: str | float | None = None
    random_step: bool = False
    keep: str = 'last'

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step_size is not None:
            object.__setattr__(self, 'step_size', checked_step_size(self.step_size, self.threat, type(self).__name__))
            warn_of_short_steps(self.reach(), self.threat, type(self).__name__)
        if self.keep not in KEEP:
            raise UserError(f"{type(self).__name__}: unknown keep '{self.keep}'{nearest(str(self.keep), KEEP)}")

    @property
    def is_random(self) -> bool:
        return self.random_start or self.random_step

    @property
    def keeps_strongest(self) -> bool:
        return self.keep == 'lowest_accuracy'

    @checked
    def with_threat(self, threat: Threat) -> PGD:
        """Returns the same attack under another threat model; a given step size stays the same share of the radius."""
        step_size = scaled_step_size(self.step_size, self.threat, threat, type(self).__name__)
        return dataclasses.replace(self, threat=threat, step_size=step_size)

    def resolved_step_size(self) -> float:
        """Returns the step size that the attack uses: the given one or the default."""
        radius = self.threat.radius
        if self.step_size is not None:
            return float(self.step_size)
        return min(radius, max(radius / 4, 2.5 * radius / self.steps))

    def reach(self) -> float:
        """Returns the total length of all steps, in the threat's norm."""
        return self.steps * self.resolved_step_size()

    def run(self, context: AttackContext, start: Tensor | None = None) -> AttackOutput:
        start = self.first_iterate(context, start)
        step_size: Tensor | float = self.resolved_step_size()
        if self.random_step:
            step_size = step_size * uniform_scalars(context.images, context.seeds)
        if self.keep == 'last':
            return AttackOutput(self._last(context, start, step_size))
        if self.keep == 'best_loss':
            return self._best_loss(context, start, step_size)
        return self._lowest_accuracy(context, start, step_size)

    def _next(self, iterate: Tensor, gradient: Tensor | None, centre: Tensor, step_size: Tensor | float) -> Tensor:
        assert gradient is not None
        return self.threat.project(self.threat.step(iterate, gradient, step_size), centre)

    def _last(self, context: AttackContext, iterate: Tensor, step_size: Tensor | float) -> Tensor:
        for step in range(self.steps):
            gradient, _ = context.gradient(iterate, self.objective, step / self.steps)
            iterate = self._next(iterate, gradient, context.images, step_size)
        return iterate

    def _best_loss(self, context: AttackContext, iterate: Tensor, step_size: Tensor | float) -> AttackOutput:
        best = AttackOutput(iterate.clone())
        best_loss = torch.full((len(context),), -torch.inf, dtype=iterate.dtype, device=iterate.device)
        for step in range(self.steps + 1):
            moves = step < self.steps
            evaluation = context.evaluate(iterate, self.objective, step / self.steps, gradient=moves)
            if best.correct is None or best.predictions is None:
                best.correct, best.predictions = evaluation.correct.clone(), evaluation.predictions.clone()
            assert evaluation.loss is not None
            better = evaluation.loss > best_loss
            chosen = better.view(-1, 1, 1, 1)
            best.images = torch.where(chosen, iterate, best.images)
            best.correct = torch.where(better, evaluation.correct, best.correct)
            best.predictions = torch.where(chosen[:, 0], evaluation.predictions, best.predictions)
            best_loss = torch.where(better, evaluation.loss, best_loss)
            if moves:
                iterate = self._next(iterate, evaluation.gradient, context.images, step_size)
        return best

    def _lowest_accuracy(self, context: AttackContext, iterate: Tensor, step_size: Tensor | float) -> AttackOutput:
        search = Search(context, targeted=self.targeted)
        for step in range(self.steps):
            evaluation = search.context.evaluate(iterate, self.objective, step / self.steps, gradient=True, track=False)
            gradient = evaluation.gradient
            assert gradient is not None
            remaining = search.drop_done(search.take(iterate, evaluation))
            if remaining is not None:
                iterate, gradient = iterate[remaining], gradient[remaining]
                step_size = step_size[remaining] if isinstance(step_size, Tensor) else step_size
            if not len(search):
                return search.result()
            iterate = self._next(iterate, gradient, search.context.images, step_size)
        search.take(iterate, search.context.evaluate(iterate, self.objective, 1.0, track=False))
        return search.result()


@ATTACKS.register
@dataclass(frozen=True, kw_only=True)
class FGSM(PGD):
    """The fast gradient sign method (Goodfellow et al., 2015): one step from the clean image, as long as the radius."""

    steps: int = 1
    random_start: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps != 1:
            raise UserError(f'{type(self).__name__} takes one step; found steps={self.steps}; use BIM or PGD for more')


@ATTACKS.register
@dataclass(frozen=True, kw_only=True)
class RandomFGSM(FGSM):
    """FGSM with each image's step size drawn from U(0, radius) (the random FGSM of Fast Newton's comparison)."""

    random_step: bool = True


@ATTACKS.register
@dataclass(frozen=True, kw_only=True)
class BIM(PGD):
    """The basic iterative method (Kurakin et al., 2017): PGD from the clean image."""

    random_start: bool = False


@ATTACKS.register
@dataclass(frozen=True, kw_only=True)
class SegPGD(PGD):
    """SegPGD (Gu et al., 2022): PGD on the balanced cross-entropy."""

    objective: Objective = BalancedCrossEntropy()


@ATTACKS.register
@dataclass(frozen=True, kw_only=True)
class CosPGD(PGD):
    """CosPGD (Agnihotri and Keuper, 2023): PGD on the cosine-weighted cross-entropy."""

    objective: Objective = CosineCrossEntropy()
