"""Attacks by name: SEA in its two published forms, and those of the command lines."""

from __future__ import annotations

from typing import Any

from mmadv.attacks.apgd import APGD
from mmadv.attacks.attack import Attack
from mmadv.attacks.ensemble import WorstCase
from mmadv.attacks.objectives import (
    BalancedCrossEntropy,
    JensenShannon,
    MaskedBalancedCrossEntropy,
    MaskedCrossEntropy,
    MaskedSpherical,
    Objective,
)
from mmadv.attacks.pgd import BIM, FGSM, PGD, CosPGD, SegPGD
from mmadv.attacks.radius_reduction import RadiusReduction
from mmadv.attacks.threat import Threat
from mmadv.errors import UserError, nearest
from mmadv.registry import ATTACKS, THREATS, build

SEA_OBJECTIVES: dict[str, dict[str, Objective]] = {
    'paper': {
        'masked_ce': MaskedCrossEntropy(),
        'balanced_ce': BalancedCrossEntropy(),
        'js': JensenShannon(),
        'masked_spherical': MaskedSpherical(),
    },
    'eccv': {
        'masked_ce': MaskedCrossEntropy(),
        'masked_balanced_ce': MaskedBalancedCrossEntropy(),
        'js': JensenShannon(),
    },
}


@ATTACKS.register
def sea(
    radius: str | float, iterations: int = 300, preset: str = 'paper', threat: str | dict[str, Any] = 'Linf'
) -> WorstCase:
    """Returns SEA: APGD with radius reduction on each objective, and the worst case per image.

    Args:
        radius: '4/255', '0.03' or a float.
        iterations: for each objective, over the three radii together.
        preset: 'paper' (masked CE, balanced CE, JS, masked spherical) or 'eccv', the later published version
            (masked CE, masked balanced CE, JS).
        threat: 'Linf', as published, or 'L2'.

    Raises:
        UserError: an unknown preset or threat, or a radius that is not one.
    """
    if preset not in SEA_OBJECTIVES:
        raise UserError(f"unknown SEA preset '{preset}'{nearest(str(preset), SEA_OBJECTIVES)}")
    budget = build({**({'type': threat} if isinstance(threat, str) else threat), 'radius': radius}, THREATS)
    return WorstCase(
        attacks={
            name: RadiusReduction(attack=APGD(threat=budget, steps=iterations, objective=objective))
            for name, objective in SEA_OBJECTIVES[preset].items()
        }
    )


def _single(kind: type[PGD], steps: int | None) -> Any:
    def make(threat: Threat, iterations: int | None) -> Attack:
        if steps is None:
            if iterations is not None:
                raise UserError(f'{kind.__name__} takes one step; leave out the iterations, or choose bim or pgd')
            return kind(threat=threat, keep='lowest_accuracy')
        return kind(threat=threat, steps=iterations or steps, keep='lowest_accuracy')

    return make


def _apgd(threat: Threat, iterations: int | None) -> Attack:
    return APGD(threat=threat, steps=iterations or 100)


def _sea(preset: str) -> Any:
    def make(threat: Threat, iterations: int | None) -> Attack:
        return sea(threat.radius, iterations or 300, preset, type(threat).__name__)

    return make


PRESETS = {
    'fgsm': _single(FGSM, None),
    'bim': _single(BIM, 10),
    'pgd': _single(PGD, 20),
    'segpgd': _single(SegPGD, 100),
    'cospgd': _single(CosPGD, 100),
    'apgd': _apgd,
    'sea': _sea('paper'),
    'sea-eccv': _sea('eccv'),
}


def preset(name: str, radius: str | float, iterations: int | None = None, threat: str = 'Linf') -> Attack:
    """Returns the attack that a command line calls ``name``, as strong as it goes: iterates of lowest accuracy.

    Args:
        name: a key of ``PRESETS``.
        radius: '4/255', '0.03' or a float.
        iterations: instead of the preset's own number (bim 10, pgd 20, segpgd, cospgd and apgd 100, sea 300
            for each objective); fgsm takes none.
        threat: 'Linf' or 'L2'.

    Raises:
        UserError: an unknown name, iterations that are not positive or do not apply, a radius that is not one.
    """
    if name not in PRESETS:
        raise UserError(f"unknown attack '{name}'{nearest(str(name), PRESETS)}")
    if iterations is not None and iterations < 1:
        raise UserError(f'iterations must be positive; found {iterations}')
    return PRESETS[name](build({'type': threat, 'radius': radius}, THREATS), iterations)
