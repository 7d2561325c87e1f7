"""Attacks by name: SEA in its two published forms, AMA and its ensemble, and the attacks of the command lines."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from mmadv.attacks.annealed_margin import AnnealedMargin
from mmadv.attacks.apgd import APGD
from mmadv.attacks.attack import Attack
from mmadv.attacks.cascade import Cascade, shared_out
from mmadv.attacks.class_weights import DATASET, with_class_weights
from mmadv.attacks.ensemble import WorstCase
from mmadv.attacks.explore_then_commit import ExploreThenCommit
from mmadv.attacks.furthest_class import FurthestClass
from mmadv.attacks.objectives import (
    BalancedCrossEntropy,
    JensenShannon,
    MaskedBalancedCrossEntropy,
    MaskedCrossEntropy,
    MaskedImageBalancedCrossEntropy,
    MaskedSpherical,
    Objective,
    Tsallis,
)
from mmadv.attacks.patch import Patch, UniversalPatch
from mmadv.attacks.pgd import BIM, FGSM, PGD, CosPGD, SegPGD
from mmadv.attacks.radius_reduction import RadiusReduction
from mmadv.attacks.scheduled_pgd import ScheduledPGD
from mmadv.attacks.schedules import CosineSchedule
from mmadv.attacks.square import RandomNoise, Square
from mmadv.attacks.threat import Threat
from mmadv.attacks.universal import Universal
from mmadv.errors import UserError, nearest
from mmadv.fields import WrittenRadius, checked
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
    'eccv-image': {
        'masked_ce': MaskedCrossEntropy(),
        'masked_balanced_ce': MaskedImageBalancedCrossEntropy(),
        'js': JensenShannon(),
    },
}

# Each form of AMA: its objective, and the share of its iterations in the larger ball.
AMA_FORMS: dict[str, tuple[AnnealedMargin, float]] = {
    'atan': (AnnealedMargin(), 0.6),
    'masked': (AnnealedMargin(flipped_weight=0), 0.6),
    'sigmoid': (AnnealedMargin(squash='sigmoid', temperatures=(0.5, 0.02)), 0.8),
}
# The shares of the passes of auto for its four parts.
AUTO_SHARES = (3, 2, 2, 1)


@ATTACKS.register
def sea(
    radius: str | float,
    iterations: int = 300,
    preset: str = 'paper',
    threat: str | dict[str, Any] = 'Linf',
    class_weights: str | Sequence[float] = DATASET,
) -> WorstCase:
    """Returns SEA: APGD with radius reduction on each objective, and the worst case per image.

    Args:
        radius: '4/255', '0.03' or a float.
        iterations: number of iterations for each objective, over the three radii together.
        preset: 'paper' (masked CE, balanced CE, JS, masked spherical); or 'eccv', the later published version
            (masked CE, masked balanced CE, JS); or 'eccv-image', which is 'eccv' with class weights of each image.
        threat: 'Linf', as published, or 'L2'.
        class_weights: class weights of 'eccv', as ``MaskedBalancedCrossEntropy`` takes them: one number for each class,
            or the published constants 'voc_21' or 'ade20k_151'. ``mmadv test`` fills in the weights of its data set. In
            other uses you must give them.

    Raises:
        UserError: the preset or threat is unknown, the radius is invalid, or the preset takes no class weights.
    """
    if preset not in SEA_OBJECTIVES:
        raise UserError(f"unknown SEA preset '{preset}'{nearest(str(preset), SEA_OBJECTIVES)}")
    if class_weights != DATASET and preset != 'eccv':
        raise UserError(f"the SEA preset '{preset}' takes no class_weights; leave them out, or choose 'eccv'")
    budget = _budget(radius, threat)
    ensemble = WorstCase(
        attacks={
            name: RadiusReduction(attack=APGD(threat=budget, steps=iterations, objective=objective))
            for name, objective in SEA_OBJECTIVES[preset].items()
        },
        label=f'SEA ({preset}: {len(SEA_OBJECTIVES[preset])} losses)',
    )
    return with_class_weights(ensemble, class_weights)


@ATTACKS.register
def ama(
    radius: str | float,
    passes: int = 100,
    form: str = 'atan',
    threat: str | dict[str, Any] = 'Linf',
    targeted: bool = False,
) -> ScheduledPGD:
    """Returns AMA, the annealed-margin attack: one run of PGD with momentum on ``AnnealedMargin``.

    docs/annealed_margin.md describes and measures it.

    Args:
        radius: '4/255', '0.03' or a float.
        passes: forward and backward passes per image; one more forward pass scores the last iterate.
        form: 'atan'; 'masked', which gives flipped pixels zero weight, for models whose logits saturate; or 'sigmoid',
            which starts at a higher temperature and stays longer in the larger ball, for models that lose most of their
            accuracy.
        threat: 'Linf' or 'L2'.
        targeted: whether the labels are the target classes.

    Raises:
        UserError: the form or threat is unknown, the radius is invalid, or the number of passes is not positive.
    """
    if form not in AMA_FORMS:
        raise UserError(f"unknown form of AMA '{form}'{nearest(str(form), AMA_FORMS)}")
    objective, share = AMA_FORMS[form]
    return ScheduledPGD(
        threat=_budget(radius, threat),
        steps=passes,
        objective=dataclasses.replace(objective, targeted=targeted),
        schedule=CosineSchedule(share=share),
        label='AMA ({steps} passes)' if form == 'atan' else f'AMA ({form}, {{steps}} passes)',
    )


@ATTACKS.register
def auto(
    radius: str | float, passes: int = 400, threat: str | dict[str, Any] = 'Linf', targeted: bool = False
) -> Cascade:
    """Returns the default ensemble for evaluations: AMA, AMA aimed at the furthest class, then APGD.

    The ensemble has no settings to choose for a model. Its passes are shared out as follows:

    - Three eighths go to AMA.
    - Two eighths go to each of two runs of AMA aimed at the class that is furthest from all pixels of an image
      (``FurthestClass``). The two runs have different random starts.
    - The last eighth goes to APGD on the Jensen-Shannon divergence, which starts from the strongest result so far.

    AMA and aimed AMA fail on different models. On models on which only aimed AMA works, the result of a single image
    depends on the random start. An image without a pixel left to flip takes no part in the later attacks.
    docs/annealed_margin.md compares the ensemble with SEA.

    Args:
        radius: '4/255', '0.03' or a float.
        passes: the largest number of forward and backward passes per image, for all attacks together. Six more forward
            passes choose the class, once for each start, and score results.
        threat: 'Linf' or 'L2'.
        targeted: whether the labels are the target classes; the aimed parts are then AMA in its masked form.

    Raises:
        UserError: the threat is unknown, the radius is invalid, or there are fewer passes than attacks.
    """
    counts = shared_out(passes, AUTO_SHARES)
    furthest = FurthestClass(attack=ama(radius, counts[1], 'masked', threat, targeted))
    return Cascade(
        attacks={
            'ama': ama(radius, counts[0], threat=threat, targeted=targeted),
            'furthest': furthest,
            'furthest_again': furthest,
            'js': APGD(threat=_budget(radius, threat), steps=counts[3], objective=JensenShannon(targeted=targeted)),
        },
        relays=('js',),
        label='auto ({steps} passes)',
    )


@ATTACKS.register
def adaptive(
    radius: str | float, passes: int = 120, threat: str | dict[str, Any] = 'Linf', targeted: bool = False
) -> ExploreThenCommit:
    """Returns the parts of ``auto`` under a rule that decides for each image which part gets the passes, and how many.

    AMA, AMA aimed at the furthest class, and APGD on the Jensen-Shannon divergence from the strongest result so far
    take 20 passes each. If they gain a tenth of a point, the part that led runs again, with the passes that are left
    (``ExploreThenCommit``). docs/annealed_margin.md compares it with ``auto`` and SEA.

    Args:
        radius: '4/255', '0.03' or a float.
        passes: the largest number of forward and backward passes per image, for all runs together. Further forward
            passes score the clean image and the last iterate of each run, and choose the class.
        threat: 'Linf' or 'L2'.
        targeted: whether the labels are the target classes; the aimed part is then AMA in its masked form.

    Raises:
        UserError: the threat is unknown, the radius is invalid, or there are fewer passes than attacks.
    """
    return ExploreThenCommit(
        attacks={
            'ama': ama(radius, threat=threat, targeted=targeted),
            'furthest': FurthestClass(attack=ama(radius, 100, 'masked', threat, targeted)),
            'js': APGD(threat=_budget(radius, threat), objective=JensenShannon(targeted=targeted)),
        },
        relays=('js',),
        steps=passes,
        label='adaptive ({steps} passes)',
    )


def _budget(radius: str | float, threat: str | dict[str, Any]) -> Threat:
    return build({**({'type': threat} if isinstance(threat, str) else threat), 'radius': radius}, THREATS)


@dataclasses.dataclass(frozen=True)
class Preset:
    """An attack by name.

    Attributes:
        make: threat model and number of iterations -> attack.
        steps: the attack's default number of iterations; None for an attack of one step, which takes no number.
        counted: the unit of that number, if it is not steps on each image.
        radius: the only radius that the attack takes; None for any.
    """

    make: Callable[[Threat, int], Attack]
    steps: int | None
    counted: str = ''
    radius: str | None = None


def _strongest(kind: type[PGD]) -> Callable[[Threat, int], Attack]:
    return lambda threat, steps: kind(threat=threat, steps=steps, keep='lowest_accuracy')


def _sea(name: str) -> Callable[[Threat, int], Attack]:
    return lambda threat, steps: sea(threat.radius, steps, name, _kind(threat))


def _kind(threat: Threat) -> dict[str, Any]:
    """Returns the config of a threat model without its radius."""
    return {'type': type(threat).__name__} | ({} if threat.region is None else {'region': threat.region})


PRESETS: dict[str, Preset] = {
    'fgsm': Preset(_strongest(FGSM), None),
    'bim': Preset(_strongest(BIM), 10),
    'pgd': Preset(_strongest(PGD), 20),
    'segpgd': Preset(_strongest(SegPGD), 100),
    'cospgd': Preset(_strongest(CosPGD), 100),
    'apgd': Preset(lambda threat, steps: APGD(threat=threat, steps=steps), 100),
    'sea': Preset(_sea('paper'), 300, 'of each loss'),
    'sea-eccv': Preset(_sea('eccv'), 300, 'of each loss'),
    'sea-eccv-image': Preset(_sea('eccv-image'), 300, 'of each loss'),
    'tsallis': Preset(
        lambda threat, steps: RadiusReduction(
            attack=APGD(threat=threat, steps=steps, objective=Tsallis()), label='TsallisPGD ({steps} steps)'
        ),
        300,
    ),
    'ama': Preset(lambda threat, steps: ama(threat.radius, steps, threat=_kind(threat)), 100),
    'auto': Preset(lambda threat, steps: auto(threat.radius, steps, _kind(threat)), 400, 'in all'),
    'adaptive': Preset(lambda threat, steps: adaptive(threat.radius, steps, _kind(threat)), 120, 'in all, at most'),
    'square': Preset(lambda threat, steps: Square(threat=threat, steps=steps), 1000, 'queries'),
    'noise': Preset(lambda threat, steps: RandomNoise(threat=threat, steps=steps), 10, 'draws'),
    'universal': Preset(lambda threat, steps: Universal(threat=threat, steps=steps), 300, 'mini-batches'),
    'patch': Preset(lambda threat, steps: Patch(steps=steps).with_threat(threat), 400, 'draws', '1'),
    'universal-patch': Preset(
        lambda threat, steps: UniversalPatch(steps=steps).with_threat(threat), 300, 'mini-batches', '1'
    ),
}


@checked
def preset(name: str, radius: WrittenRadius, iterations: int | None = None, threat: str = 'Linf') -> Attack:
    """Returns the attack that command lines call ``name``, in its strongest form: it keeps iterates of lowest accuracy.

    Args:
        name: a key of ``PRESETS``.
        radius: '4/255', '0.03' or a float.
        iterations: number of iterations instead of the preset's own number; fgsm takes none.
        threat: 'Linf' or 'L2'.

    Raises:
        UserError: the name is unknown, the iterations are not positive or do not apply, or the radius is invalid.
    """
    if name not in PRESETS:
        raise UserError(f"unknown attack '{name}'{nearest(str(name), PRESETS)}")
    if iterations is not None and iterations < 1:
        raise UserError(f'iterations must be positive; found {iterations}')
    chosen = PRESETS[name]
    attack = chosen.make(build({'type': threat, 'radius': radius}, THREATS), iterations or chosen.steps or 1)
    if chosen.steps is None and iterations is not None:
        raise UserError(f'{attack.title} takes one step; leave out the iterations, or choose bim or pgd')
    return attack
