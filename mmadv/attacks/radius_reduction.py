"""Progressive radius reduction (red-ε of SEA, section 2.3), as a wrapper around an attack."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass

from torch import Tensor

from mmadv.attacks.apgd import APGD
from mmadv.attacks.attack import Wrapper
from mmadv.attacks.attack_context import AttackContext
from mmadv.attacks.pgd import PGD
from mmadv.attacks.result import AttackOutput
from mmadv.attacks.threat import Threat
from mmadv.errors import UserError
from mmadv.registry import ATTACKS


@ATTACKS.register
@dataclass(frozen=True, kw_only=True)
class RadiusReduction(Wrapper):
    """Runs an attack at larger radii first. Each phase starts from the projected result of the phase before.

    Step size, momentum and history restart in each phase. Only the first phase has a random start. An objective with
    its own schedule decides whether that schedule restarts too (``Objective.part``).

    Args:
        attack: APGD, or PGD that keeps its iterate of lowest accuracy, at the final radius and with all the
            iterations; or its config.
        factors: factor of the radius in each phase; the last factor is 1.
        shares: share of the iterations in each phase, rounded down; the last phase has the rest.
    """

    factors: tuple[float, ...] = (2.0, 1.5, 1.0)
    shares: tuple[float, ...] = (0.3, 0.3, 0.4)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, 'factors', tuple(float(factor) for factor in self.factors))
        object.__setattr__(self, 'shares', tuple(float(share) for share in self.shares))
        if not isinstance(self.attack, (APGD, PGD)):
            raise UserError(f'RadiusReduction wraps APGD or PGD; found {type(self.attack).__name__}')
        if len(self.factors) != len(self.shares) or not self.factors:
            raise UserError(
                f'RadiusReduction: {len(self.factors)} factors need as many shares; found {len(self.shares)}'
            )
        if self.factors[-1] != 1 or min(self.factors) <= 0:
            raise UserError(f'RadiusReduction: factors must be positive and end with 1; found {self.factors}')
        if min(self.shares) < 0 or abs(sum(self.shares) - 1) > 1e-9:
            raise UserError(f'RadiusReduction: shares must not be negative and sum to 1; found {self.shares}')

    @property
    def start_threat(self) -> Threat:
        return self.phases()[0].threat

    def phases(self) -> list[APGD | PGD]:
        """Returns the attack of each phase that has at least one iteration."""
        assert isinstance(self.attack, (APGD, PGD))
        # The small number corrects rounding: 0.29 * 100 is 28.999999999999996, for example, but must count as 29.
        steps = [int(share * self.attack.steps + 1e-9) for share in self.shares[:-1]]
        steps.append(self.attack.steps - sum(steps))
        ends = [done / self.attack.steps for done in itertools.accumulate(steps)]
        phases = []
        for factor, count, begin, end in zip(self.factors, steps, [0.0, *ends[:-1]], ends, strict=True):
            if count > 0:
                phase = self.attack.with_threat(self.threat.scaled(factor)).with_steps(count)
                objective = self.attack.objective.part(begin, end)
                phases.append(dataclasses.replace(phase, objective=objective))
        return phases

    def run(self, context: AttackContext, start: Tensor | None = None) -> AttackOutput:
        output: AttackOutput | None = None
        for phase in self.phases():
            if output is not None:
                start = phase.threat.project(output.images, context.images)
            output = phase.run(context, start)
        assert output is not None
        return output
