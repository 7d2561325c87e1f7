"""Attacks in turn, each on the images that those before it left unsolved."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from mmadv.attacks.attack import Attack
from mmadv.attacks.problem import Problem
from mmadv.attacks.restarts import strongest_in_turn
from mmadv.attacks.result import Found
from mmadv.attacks.threat import Threat
from mmadv.errors import UserError
from mmadv.registry import ATTACKS, build


@ATTACKS.register
@dataclass(frozen=True, kw_only=True)
class Cascade(Attack):
    """Runs attacks in turn; keeps per image the result of lowest accuracy (ties: the later attack).

    An image without a pixel left to flip, which no pass can improve, takes no part in the attacks that follow: so the
    passes per image are at most those of all attacks together. (``WorstCase`` runs every attack on every image, to
    report each.)

    Args:
        attacks: name -> attack or its config, in order, all with ``steps`` and under the same threat model.
        relays: names of those, but the first, that start from the strongest result so far, not by their own choice.
    """

    attacks: Mapping[str, Attack]
    relays: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.attacks, Mapping) or not self.attacks:
            raise UserError(f'Cascade: attacks must map at least one name to an attack; found {self.attacks!r}')
        attacks = {str(name): build(attack, ATTACKS) for name, attack in self.attacks.items()}
        for name, attack in attacks.items():
            if not isinstance(attack, Attack) or not hasattr(attack, 'steps'):
                raise UserError(f"Cascade: '{name}' must be an attack with steps; found {attack!r}")
        object.__setattr__(self, 'attacks', attacks)
        object.__setattr__(self, 'relays', tuple(self.relays))
        later = list(attacks)[1:]
        if not set(self.relays) <= set(later):
            raise UserError(f'Cascade: relays must be among the attacks after the first, {later}; found {self.relays}')
        if any(attack.threat != self.threat for attack in attacks.values()):
            threats = {name: attack.threat for name, attack in attacks.items()}
            raise UserError(f'Cascade: all attacks need the same threat model; found {threats}')
        if len({attack.targeted for attack in attacks.values()}) > 1:
            raise UserError('Cascade: attacks must be all targeted or all untargeted; found both')

    @property
    def threat(self) -> Threat:  # type: ignore[override]
        return self._first.threat

    @property
    def start_threat(self) -> Threat:
        return self._first.start_threat

    @property
    def targeted(self) -> bool:
        return self._first.targeted

    @property
    def is_random(self) -> bool:
        return any(attack.is_random for attack in self.attacks.values())

    @property
    def _first(self) -> Attack:
        return next(iter(self.attacks.values()))

    @property
    def steps(self) -> int:
        """Iterations of all attacks together."""
        return sum(attack.steps for attack in self.attacks.values())  # type: ignore[attr-defined]

    def with_threat(self, threat: Threat) -> Cascade:
        attacks = {name: attack.with_threat(threat) for name, attack in self.attacks.items()}
        return dataclasses.replace(self, attacks=attacks)

    def with_steps(self, steps: int) -> Cascade:
        """Returns the same attacks with that many iterations together, shared out as now."""
        current = [attack.steps for attack in self.attacks.values()]  # type: ignore[attr-defined]
        counts = shared_out(steps, current)
        pairs = zip(self.attacks.items(), counts, strict=True)
        return dataclasses.replace(self, attacks={name: attack.with_steps(count) for (name, attack), count in pairs})

    def run(self, problem: Problem, start: Tensor | None = None) -> Found:
        """Returns the strongest result; a given ``start`` serves the first attack only."""
        relays = [(name,) for name in self.relays]
        return strongest_in_turn(problem, {(name,): attack for name, attack in self.attacks.items()}, start, relays)


def shared_out(steps: int, weights: Sequence[int]) -> list[int]:
    """Returns ``steps`` split in proportion to the weights, each at least 1; what rounding leaves goes to the first.

    >>> shared_out(400, [1, 1, 2]), shared_out(7, [1, 1])
    ([100, 100, 200], [4, 3])

    Raises:
        UserError: fewer steps than weights.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < len(weights):
        raise UserError(f'{len(weights)} attacks in turn need at least as many steps together; found {steps!r}')
    counts = [max(1, steps * weight // sum(weights)) for weight in weights]
    while sum(counts) > steps:
        counts[counts.index(max(counts))] -= 1
    counts[0] += steps - sum(counts)
    return counts
