"""One attack for each radius, for settings that were chosen at each radius separately."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mmadv.attacks.attack_context import AttackContext
from mmadv.attacks.group import AttackGroup
from mmadv.attacks.result import AttackOutput
from mmadv.attacks.threat import Threat
from mmadv.errors import UserError
from mmadv.fields import checked
from mmadv.registry import ATTACKS

# Two texts of a radius, such as '4/255' and '0.015686', are the same radius if they agree to this share.
SAME_RADIUS = 1e-4


@ATTACKS.register
@dataclass(frozen=True, kw_only=True)
class ByRadius(AttackGroup):
    """The attack that belongs to a radius; nothing is scaled from one radius to another.

    Published step sizes are often chosen at each radius separately, for example in SEA's appendix B.1. ``with_radius``
    (``--eps``) returns the attack of that radius, and refuses a radius without one. The object itself attacks like its
    first attack.

    Args:
        attacks: name -> attack or its config, each at its own radius and in the same norm.
    """

    shares_threat = False

    def __post_init__(self) -> None:
        super().__post_init__()
        radii = [attack.threat.radius for attack in self.attacks.values()]
        if len(set(radii)) < len(radii):
            raise UserError(f'ByRadius: attacks must have a different radius each; found {radii}')

    @property
    def title(self) -> str:
        return super().title if self.label else self.first.title

    @property
    def start_threat(self) -> Threat:
        return self.first.start_threat

    @property
    def is_random(self) -> bool:
        return self.first.is_random

    @checked
    def with_threat(self, threat: Threat) -> Any:
        """Returns the attack of the threat model's radius.

        Raises:
            UserError: no attack has this norm and radius.
        """
        for attack in self.attacks.values():
            same = math.isclose(attack.threat.radius, threat.radius, rel_tol=SAME_RADIUS)
            if same and type(attack.threat) is type(threat):
                return attack.with_threat(threat)
        known = ', '.join(_text(attack.threat) for attack in self.attacks.values())
        raise UserError(f'ByRadius has no attack for {_text(threat)}, only for {known}; give one of these radii')

    def run(self, context: AttackContext, start: Tensor | None = None) -> AttackOutput:
        return self.first.run(context, start)


def _text(threat: Threat) -> str:
    return f'{type(threat).__name__} {threat.radius * 255:.4g}/255'
