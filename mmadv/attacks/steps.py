"""Fixed step sizes: how they scale with the radius, and whether the steps are long enough for the budget."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mmadv.attacks.threat import Linf, Threat
from mmadv.errors import UserError

if TYPE_CHECKING:
    from mmadv.attacks.attack import Attack

# A tolerance for rounding: three steps of 0.01 must count as long enough for 0.03.
ROUNDING = 1e-9


def scaled_step_size(step_size: Any, before: Threat, after: Threat, owner: str) -> float | None:
    """Returns a fixed step size for another radius, as the same share of that radius. None (the default) stays None.

    Args:
        step_size: the step size in the norm of ``before``, or None.
        before: the budget for which the step size was chosen.
        after: the budget for which the step size is computed.
        owner: the name of the attack that takes the steps, for the message.

    Raises:
        UserError: the norm changes, so the old step size gives no new one.
    """
    if step_size is None:
        return None
    if type(before) is not type(after):
        raise UserError(
            f'{owner}: step_size {step_size:g} was chosen for {before} and does not apply to {after}; '
            'leave step_size out, or build the attack for that threat model'
        )
    scaled = float(step_size) * (after.radius / before.radius)
    return min(scaled, 1.0) if isinstance(after, Linf) else scaled


def warn_of_short_steps(reach: float, threat: Threat, owner: str) -> None:
    """Warns if all steps together are shorter than the radius, because the attack then cannot use its budget.

    Args:
        reach: total length of all steps, in the norm of ``threat``.
        threat: the budget.
        owner: the name of the attack that takes the steps, for the message.
    """
    if reach < threat.radius * (1 - ROUNDING):
        warnings.warn(
            f'{owner}: all steps together reach {reach:g}, less than the radius {threat.radius:g}, so the attack '
            'cannot use its budget and is too weak; raise steps or step_size, or leave step_size out',
            stacklevel=3,
        )


def step_notes(attack: Attack | None, attacks: Mapping[str, Attack | None]) -> list[str]:
    """Returns notes on fixed step sizes, for the reader of results.

    Args:
        attack: the attack as the user gave it.
        attacks: radius -> the same attack at that radius, None for radius 0.
    """
    if attack is None:
        return []
    notes = []
    parts = {radius: dict(attacks_with_steps(other)) for radius, other in attacks.items() if other is not None}
    for name, own in attacks_with_steps(attack):
        same_name = {radius: others[name] for radius, others in parts.items() if name in others}
        scaled = [
            f'{other.resolved_step_size():.4g} at {radius}'
            for radius, other in same_name.items()
            if other.threat.radius != own.threat.radius
        ]
        if own.step_size is None:
            continue
        if scaled:
            notes.append(
                f'{name}: step_size {own.resolved_step_size():.4g} was chosen for radius {own.threat.radius:.4g}, and '
                f'is scaled with the radius: {", ".join(scaled)}'
            )
        for radius, other in same_name.items():
            width = other.threat.radius * (2 if other.random_start else 1)
            if other.reach() < width * (1 - ROUNDING):
                across = 'cross the ball from a random start' if other.random_start else 'reach its boundary'
                notes.append(
                    f'{name}: {other.steps} steps reach {other.reach():.4g}, which is too short to {across} at radius '
                    f'{radius}: a stronger setting would leave less accuracy; raise steps, or leave step_size out'
                )
    return notes


def attacks_with_steps(attack: Attack, name: str = '') -> Iterator[tuple[str, Any]]:
    """Yields the name and the attack for each attack with a fixed step size inside an attack."""
    label = f'{name} ({type(attack).__name__})' if name else type(attack).__name__
    if hasattr(attack, 'resolved_step_size'):
        yield label, attack
    for item in dataclasses.fields(attack):
        value = getattr(attack, item.name)
        parts = value.items() if isinstance(value, Mapping) else [(name, value)]
        for key, part in parts:
            if hasattr(part, 'with_threat'):
                yield from attacks_with_steps(part, str(key))
