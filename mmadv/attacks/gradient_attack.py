"""The base of attacks that follow a gradient: their fields and their start image."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from mmadv.attacks.attack import Attack, build_parts, check_start, check_steps
from mmadv.attacks.attack_context import AttackContext
from mmadv.attacks.objectives import CrossEntropy, Objective
from mmadv.attacks.threat import Threat


@dataclass(frozen=True, kw_only=True)
class GradientAttack(Attack):
    """Base of attacks that raise an objective by steps along its gradient.

    Args:
        threat: the budget, or its config.
        steps: iterations, one gradient each.
        objective: the objective to maximise, or its config.
        random_start: start from a random image of ``start_threat``, not from the clean one.
        label: the attack's name in tables, see ``Attack``.
    """

    threat: Threat
    steps: int = 10
    objective: Objective = CrossEntropy()
    random_start: bool = True
    label: str = field(default='', compare=False)

    def __post_init__(self) -> None:
        build_parts(self, threat=self.threat, objective=self.objective)
        check_steps(self, self.steps)
        check_start(self, self.objective, self.random_start)

    @property
    def targeted(self) -> bool:
        return self.objective.targeted

    @property
    def is_random(self) -> bool:
        return self.random_start

    def first_iterate(self, context: AttackContext, start: Tensor | None) -> Tensor:
        """Returns the first iterate, (N, C, h, w): the given one, or the attack's own choice if ``start`` is None."""
        if start is not None:
            return start
        if not self.random_start:
            return context.images
        return self.start_threat.random_start(context.images, context.seeds)
