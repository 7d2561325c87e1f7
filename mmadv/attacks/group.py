"""The base of attacks made of several others: it builds and checks the parts and delegates to them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from mmadv.attacks.attack import Attack, check_part_of
from mmadv.attacks.threat import Threat
from mmadv.errors import UserError
from mmadv.fields import Positive, checked
from mmadv.registry import ATTACKS, build


@dataclass(frozen=True, kw_only=True)
class AttackGroup(Attack):
    """Base of attacks made of several others, which are all targeted or all untargeted.

    Args:
        attacks: name -> attack or its config.
        label: the attack's name in tables, see ``Attack``.

    Attributes:
        shares_threat: whether all attacks need the same threat model; if False, they need only the same norm.
    """

    attacks: Mapping[str, Attack]
    label: str = field(default='', compare=False)

    shares_threat: ClassVar[bool] = True

    def __post_init__(self) -> None:
        kind = type(self).__name__
        if not isinstance(self.attacks, Mapping) or not self.attacks:
            raise UserError(f'{kind}: attacks must map at least one name to an attack; found {self.attacks!r}')
        attacks = {str(name): build(attack, ATTACKS) for name, attack in self.attacks.items()}
        for name, attack in attacks.items():
            if not isinstance(attack, Attack):
                raise UserError(f"{kind}: '{name}' must be an attack; found {attack!r}")
            check_part_of(self, attack)
        object.__setattr__(self, 'attacks', attacks)
        threats = {name: attack.threat for name, attack in attacks.items()}
        if self.shares_threat and any(threat != self.threat for threat in threats.values()):
            raise UserError(f'{kind}: all attacks need the same threat model; found {threats}')
        norms = {name: type(threat).__name__ for name, threat in threats.items()}
        if len(set(norms.values())) > 1:
            raise UserError(f'{kind}: all attacks need threat models of one norm; found {norms}')
        if len({attack.targeted for attack in attacks.values()}) > 1:
            raise UserError(f'{kind}: attacks must be all targeted or all untargeted; found both')

    @property
    def first(self) -> Attack:
        """The first of the attacks."""
        return next(iter(self.attacks.values()))

    @property
    def threat(self) -> Threat:
        return self.first.threat

    @property
    def targeted(self) -> bool:
        return self.first.targeted

    @property
    def is_random(self) -> bool:
        return any(attack.is_random for attack in self.attacks.values())

    @property
    def steps(self) -> int | None:
        """Number of iterations of the first attack. ``with_steps`` sets the number of all attacks."""
        return self.first.steps

    @checked
    def with_threat(self, threat: Threat) -> Any:
        return self._each(lambda attack: attack.with_threat(threat))

    @checked
    def with_steps(self, steps: Positive) -> Any:
        return self._each(lambda attack: attack.with_steps(steps))

    def _each(self, change: Any) -> Any:
        attacks = {name: change(attack) for name, attack in self.attacks.items()}
        return dataclasses.replace(self, attacks=attacks)
