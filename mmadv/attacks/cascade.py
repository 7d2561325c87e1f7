"""Attacks that run in turn, each on the images that the earlier attacks left unsolved."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import Tensor

from mmadv.attacks.attack_context import AttackContext
from mmadv.attacks.group import AttackGroup
from mmadv.attacks.restarts import run_in_turn
from mmadv.attacks.result import AttackOutput
from mmadv.attacks.threat import Threat
from mmadv.errors import UserError
from mmadv.fields import Positive, checked
from mmadv.registry import ATTACKS


@ATTACKS.register
@dataclass(frozen=True, kw_only=True)
class Cascade(AttackGroup):
    """Runs attacks in turn; keeps per image the result of lowest accuracy (ties: the later attack).

    No pass can improve an image without a pixel left to flip, so the later attacks skip it. The passes per image are
    at most those of all attacks together. (``WorstCase`` runs every attack on every image, to report each.)

    Args:
        attacks: name -> attack or its config, in order, all with ``steps`` and under the same threat model.
        relays: names of the attacks that start from the strongest result so far, not from their own choice; the first
            attack cannot be one of them.
    """

    relays: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, attack in self.attacks.items():
            if attack.steps is None:
                raise UserError(f"Cascade: '{name}' must be an attack with steps; found {attack!r}")
        object.__setattr__(self, 'relays', tuple(self.relays))
        later = list(self.attacks)[1:]
        if not set(self.relays) <= set(later):
            raise UserError(f'Cascade: relays must be among the attacks after the first, {later}; found {self.relays}')

    @property
    def start_threat(self) -> Threat:
        return self.first.start_threat

    @property
    def steps(self) -> int:
        """Total number of iterations of all attacks."""
        return sum(self._shares())

    @checked
    def with_steps(self, steps: Positive) -> Cascade:
        """Returns the same attacks with ``steps`` iterations in total, in the same proportions as now."""
        counts = shared_out(steps, self._shares())
        pairs = zip(self.attacks.items(), counts, strict=True)
        return dataclasses.replace(self, attacks={name: attack.with_steps(count) for (name, attack), count in pairs})

    @property
    def keeps_strongest(self) -> bool:
        return True

    def _shares(self) -> list[int]:
        return [attack.steps or 0 for attack in self.attacks.values()]

    def run(self, context: AttackContext, start: Tensor | None = None) -> AttackOutput:
        """Returns the strongest result; only the first attack uses a given ``start``."""
        relays = [(name,) for name in self.relays]
        return run_in_turn(context, {(name,): attack for name, attack in self.attacks.items()}, start, relays)


def only(cascade: Cascade, names: Collection[str]) -> Cascade:
    """Returns the cascade of some of a cascade's attacks, which have the same noise as in the whole."""
    attacks = {name: attack for name, attack in cascade.attacks.items() if name in names}
    later = list(attacks)[1:]
    return dataclasses.replace(cascade, attacks=attacks, relays=tuple(name for name in cascade.relays if name in later))


def shared_out(steps: int, weights: Sequence[int]) -> list[int]:
    """Returns ``steps`` split in proportion to the weights, each share at least 1.

    The first share takes the remainder of the rounding.

    >>> shared_out(400, [1, 1, 2]), shared_out(7, [1, 1])
    ([100, 100, 200], [4, 3])

    Raises:
        UserError: there are fewer steps than weights.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < len(weights):
        raise UserError(f'{len(weights)} attacks in turn need at least as many steps together; found {steps!r}')
    counts = [max(1, steps * weight // sum(weights)) for weight in weights]
    while sum(counts) > steps:
        counts[counts.index(max(counts))] -= 1
    counts[0] += steps - sum(counts)
    return counts
