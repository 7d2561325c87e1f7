"""Every public call of mmadv.attacks refuses every spoilt argument in one sentence that names it."""

import numpy as np
import pytest
import torch
from mutations import cases, check_complete, check_refused, public_calls, rights
from toy_models import batch, conv_net

import mmadv.attacks
from mmadv.attacks import FGSM, L2, PGD, CrossEntropy, FromPixels, Linf, TrainingBatch, Universal, derive_seed
from mmadv.attacks.patch import Patch, UniversalPatch
from mmadv.errors import UserError
from mmadv.registry import PARTS

BOX = mmadv.attacks.Box(top=0, left=0, height=0.5, width=1)
LINF, MODEL = Linf(radius='8/255'), conv_net(0).eval()
IMAGES, LABELS = batch(0, size=(6, 7))
LOGITS = MODEL(IMAGES).detach()
SEEDS = [5, 6, 7]
BATCH = dict(model=MODEL, images=IMAGES, labels=LABELS, seeds=SEEDS, ignore_index=255, start=IMAGES)
STATISTICS = dict(mean=[0.5] * 3, std=[0.25] * 3)
PIXELS = FromPixels(MODEL, **STATISTICS)


def training():
    return Universal(threat=LINF, steps=1).train, dict(
        batches=[[TrainingBatch(MODEL, IMAGES, LABELS)]], seed=0, ignore_index=255
    )


# name -> a function that returns the callable and its right arguments.
CALLS = {
    'Attack.__call__': lambda: (FGSM(threat=LINF), BATCH | dict(clean_predictions=LABELS)),
    'Attack.perturb': lambda: (FGSM(threat=L2(radius=0.5)).perturb, BATCH),
    'Attack.with_radius': lambda: (PGD(threat=LINF).with_radius, dict(radius='4/255')),
    'Attack.with_steps': lambda: (PGD(threat=LINF).with_steps, dict(steps=3)),
    'Attack.with_threat': lambda: (mmadv.attacks.APGD(threat=LINF).with_threat, dict(threat=LINF)),
    'PGD.with_threat': lambda: (PGD(threat=LINF).with_threat, dict(threat=LINF)),
    'Universal.with_threat': lambda: (Universal(threat=LINF).with_threat, dict(threat=LINF)),
    'FastNewton.with_threat': lambda: (mmadv.attacks.FastNewton().with_threat, dict(threat=LINF)),
    'FastNewton.with_steps': lambda: (mmadv.attacks.FastNewton().with_steps, dict(steps=3)),
    'GaussianNoise.with_threat': lambda: (mmadv.attacks.GaussianNoise(sigma=0.1).with_threat, dict(threat=LINF)),
    'GaussianNoise.with_steps': lambda: (mmadv.attacks.GaussianNoise(sigma=0.1).with_steps, dict(steps=3)),
    'AttackGroup.with_threat': lambda: (mmadv.attacks.sea(0.1).with_threat, dict(threat=LINF)),
    'AttackGroup.with_steps': lambda: (mmadv.attacks.sea(0.1).with_steps, dict(steps=10)),
    'ByRadius.with_threat': lambda: (
        mmadv.attacks.ByRadius(attacks=dict(a=FGSM(threat=LINF))).with_threat,
        dict(threat=LINF),
    ),
    'ExploreThenCommit.with_steps': lambda: (mmadv.attacks.adaptive(0.1).with_steps, dict(steps=40)),
    'Cascade.with_steps': lambda: (mmadv.attacks.auto(0.1).with_steps, dict(steps=40)),
    'Wrapper.with_threat': lambda: (mmadv.attacks.Restarts(attack=PGD(threat=LINF)).with_threat, dict(threat=LINF)),
    'Wrapper.with_steps': lambda: (mmadv.attacks.Restarts(attack=PGD(threat=LINF)).with_steps, dict(steps=3)),
    'Attack.inside': lambda: (PGD(threat=LINF).inside, dict(region=BOX)),
    'Threat.inside': lambda: (LINF.inside, dict(region=BOX)),
    'Threat.with_radius': lambda: (LINF.with_radius, dict(radius='4/255')),
    'Threat.scaled': lambda: (L2(radius=0.5).scaled, dict(factor=0.5)),
    'Linf.scaled': lambda: (LINF.scaled, dict(factor=0.5)),
    'Threat.contains': lambda: (LINF.contains, dict(images=IMAGES, centre=IMAGES)),
    'Threat.random_start': lambda: (LINF.random_start, dict(centre=IMAGES, seeds=SEEDS)),
    'L2.random_start': lambda: (L2(radius=0.5).random_start, dict(centre=IMAGES, seeds=SEEDS)),
    'L1.random_start': lambda: (mmadv.attacks.L1(radius=0.5).random_start, dict(centre=IMAGES, seeds=SEEDS)),
    'Linf.random_start': lambda: (LINF.random_start, dict(centre=IMAGES, seeds=SEEDS)),
    'Objective.__call__': lambda: (
        CrossEntropy(),
        dict(logits=LOGITS, labels=LABELS, progress=0.5, ignore_index=255, clean_logits=LOGITS),
    ),
    'Objective.part': lambda: (CrossEntropy().part, dict(begin=0.0, end=0.5)),
    'Tsallis.part': lambda: (mmadv.attacks.Tsallis().part, dict(begin=0.0, end=0.5)),
    'FromPixels': lambda: (FromPixels, dict(model=MODEL, **STATISTICS, align_corners=False)),
    'FromPixels.forward': lambda: (FromPixels(MODEL, **STATISTICS), dict(images=IMAGES)),
    'TrainedAttack.train': training,
    'Universal.with_perturbation': lambda: (Universal(threat=LINF).with_perturbation, dict(perturbation=IMAGES[0] / 9)),
    'UniversalPatch.with_texture': lambda: (UniversalPatch().with_texture, dict(texture=IMAGES[0])),
    'PatchAttack.with_threat': lambda: (Patch().with_threat, dict(threat=Linf(radius=1))),
    'parse_radius': lambda: (mmadv.attacks.parse_radius, dict(radius='4/255', what='radius')),
    'preset': lambda: (mmadv.attacks.preset, dict(name='pgd', radius='4/255', iterations=3, threat='Linf')),
}
LOOP = 'a step of the loops of attacks, which check what they are given once'
# name -> why it is not called with spoilt arguments.
EXEMPT = {
    **{entry: 'registered: test_fields_of_components.py' for registry in PARTS for entry in registry.names()},
    **dict.fromkeys(('AttackResult', 'Pixels', 'TrainingBatch'), 'holds what it is given; what takes it checks it'),
    **dict.fromkeys(('NonFinite', 'NonFiniteLogits', 'NonFiniteGradient'), 'an error, raised by attacks alone'),
    **dict.fromkeys(('Threat', 'Objective', 'Region'), 'abstract; its subclasses are registered'),
    'derive_seed': 'takes any number of keys; test_keys_of_seeds_are_texts_or_numbers',
}
STEPS = {
    *('run', 'first_iterate', 'project', 'step', 'distance', 'in_ball', 'whole_range', 'value', 'tracked'),
    *('logit_gradient', 'tracked_and_logit_gradient', 'pending', 'margin', 'scale', 'temperature', 'order'),
    *('budget', 'textures', 'placements', 'with_trained'),
    *('radius_factor', 'step_factor', 'threat_at', 'chosen', 'confined', 'inner', 'mask', 'sparse_step', 'values'),
}
EXEMPT |= {name: LOOP for name in public_calls(mmadv.attacks) if name.rpartition('.')[2] in STEPS - set(EXEMPT)}
CENTRES = ('Threat.random_start.centre', 'L1.random_start.centre', 'L2.random_start.centre', 'Linf.random_start.centre')
RIGHT = rights(
    ('a number in the range', '2.5', 'Threat.scaled.factor', 'Linf.scaled.factor', 'parse_radius.radius'),
    ('a number in the range', '0', 'Objective.__call__.progress', 'TrainedAttack.train.seed', 'parse_radius.radius'),
    (
        'a number in the range',
        '0',
        *(f'{owner}.part.{end}' for owner in ('Objective', 'Tsallis') for end in ('begin', 'end')),
    ),
    ('what is asked is whether values are in range', 'with nan|with inf|in 0..255|negative', 'Threat.contains.images'),
    ('compared with, not judged', 'with nan|with inf|in 0..255|negative', 'Threat.contains.centre'),
    (
        'attacks have checked it, and results are clipped',
        'narrower|lower|with nan|with inf|in 0..255|negative',
        *CENTRES,
    ),
    ('logits of any size', 'half|in 0..255|negative', 'Objective.__call__.logits', 'Objective.__call__.clean_logits'),
    ('statistics of the same number', 'reals', 'FromPixels.mean', 'FromPixels.std'),
    ('a right setting', 'True', 'FromPixels.align_corners'),
    ('any images will do', 'smaller batch|empty|narrower|lower', 'FromPixels.forward.images'),
    ('smoothing adds noise, and a nan shows', 'with nan|negative', 'FromPixels.forward.images'),
    ('any images will do', 'smaller batch|narrower|lower', 'Universal.with_perturbation.perturbation'),
    ('any texture will do', 'smaller batch|narrower|lower', 'UniversalPatch.with_texture.texture'),
    ('more mini-batches than steps', 'one more', 'TrainedAttack.train.batches'),
    ("the sentence calls it 'attack', as the command line does", "'no'|''|misspelt", 'preset.name'),
    ('only a name in the message', "'no'|''|misspelt", 'parse_radius.what'),
)


def test_every_call_is_tried():
    check_complete(
        mmadv.attacks, CALLS, {name: why for name, why in EXEMPT.items() if name in public_calls(mmadv.attacks)}
    )


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(('name', 'argument'), cases(CALLS))
def test_spoilt_arguments_are_refused(name, argument):
    check_refused(CALLS, RIGHT, name, argument)


@pytest.mark.parametrize(
    'key', [np.int64(3), [1], (1,), {}, object(), torch.tensor(3)], ids=lambda key: type(key).__name__
)
def test_keys_of_seeds_are_texts_or_numbers(key):
    with pytest.raises(UserError, match='keys of a seed must be texts or Python numbers; found'):
        derive_seed(0, key)


@pytest.mark.parametrize(
    'change', [lambda x: x.mT.contiguous().mT, lambda x: x.clone().requires_grad_()], ids=['strided', 'graph']
)
def test_layout_and_graph_of_the_images_do_not_matter(change):
    attack, labels = PGD(threat=L2(radius=0.5), steps=2), LABELS.mT.contiguous().mT
    plain = attack(MODEL, IMAGES, LABELS, seeds=SEEDS)
    other = attack(MODEL, change(IMAGES), labels, seeds=SEEDS, start=None)
    assert torch.equal(plain.images, other.images) and not other.images.requires_grad
    assert torch.equal(plain.predictions, other.predictions)


def test_a_batch_without_images_has_a_result_without_images():
    result = PGD(threat=LINF, steps=1)(MODEL, IMAGES[:0], LABELS[:0], seeds=[])
    assert len(result.images) == len(result.accuracy) == len(result.predictions) == 0
