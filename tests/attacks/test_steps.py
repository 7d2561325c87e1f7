"""Fixed step sizes follow the radius, and steps that are too short for the budget are told."""

import warnings
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from toy_models import PixelLinear, batch, conv_net

import mmadv
from mmadv.attacks import (
    APGD,
    BIM,
    FGSM,
    L2,
    PGD,
    Cascade,
    CosineSchedule,
    ExploreThenCommit,
    Linf,
    RadiusReduction,
    RandomChoice,
    Restarts,
    ScheduledPGD,
    Universal,
    WorstCase,
)
from mmadv.attacks.steps import attacks_with_steps, step_notes
from mmadv.engine.spec import attacks_by_radius
from mmadv.errors import UserError
from mmadv.registry import ATTACKS, build
from mmadv.robustness import SmoothAdv
from mmadv.synthesis import Descent

LINF = Linf(radius='8/255')
FILES = sorted((Path(mmadv.__file__).parents[1] / 'configs/_base_/attacks').glob('*.py'))
FIXED = PGD(threat=LINF, steps=4, step_size='4/255', keep='lowest_accuracy')
WITH_STEPS = [
    FIXED,
    BIM(threat=LINF, steps=4, step_size='4/255'),
    FGSM(threat=LINF, step_size='8/255'),
    Universal(threat=LINF, step_size='4/255'),
    RadiusReduction(attack=FIXED),
    Restarts(attack=FIXED),
    WorstCase(attacks={'a': FIXED, 'b': APGD(threat=LINF)}),
    Cascade(attacks={'a': FIXED, 'b': APGD(threat=LINF)}),
    ExploreThenCommit(attacks={'a': FIXED, 'b': APGD(threat=LINF)}),
    RandomChoice(attacks={'a': FIXED, 'b': FGSM(threat=LINF)}),
    SmoothAdv(attack=PGD(threat=LINF, steps=4, step_size='4/255'), sigma=0.1),
]


def file(name):
    (path,) = (path for path in FILES if path.stem == name)
    return build(Config.fromfile(str(path)).attack.to_dict(), ATTACKS)


@pytest.mark.parametrize('attack', WITH_STEPS, ids=lambda attack: f'{type(attack).__name__}')
def test_a_fixed_step_size_is_the_same_share_of_every_radius(attack):
    (before,) = (part for _, part in attacks_with_steps(attack) if part.step_size is not None)
    for radius in ('2/255', '8/255', '32/255'):
        (after,) = (part for _, part in attacks_with_steps(attack.with_radius(radius)) if part.step_size is not None)
        assert after.step_size / after.threat.radius == pytest.approx(before.step_size / before.threat.radius)
    assert attack.with_radius('8/255') == attack


def test_default_step_sizes_stay_the_default():
    assert PGD(threat=LINF, steps=7).with_radius('32/255') == PGD(threat=Linf(radius='32/255'), steps=7)


def test_an_attack_file_at_other_radii_uses_them_whole():
    """Three steps of 0.01 are a fifth of the ball of 32/255: the accuracy would be the same at both radii."""
    attacks = attacks_by_radius(file('bim_3_003'), ['16/255', '32/255'])
    model = PixelLinear([1.0, -2.0, 0.5], 0.2)
    images, _ = batch(9, n=2)
    labels = torch.randint(0, 2, (2, 8, 10), generator=torch.Generator().manual_seed(0))
    direction = model.weight.detach().sign().view(1, 3, 1, 1) * (1 - 2 * labels)[:, None]
    left = []
    for attack in attacks.values():
        result = attack(model, images, labels)
        optimum = (images + attack.threat.radius * direction).clamp(0, 1)
        torch.testing.assert_close(result.images, optimum)
        left.append(float(result.accuracy.mean()))
    assert left[1] < left[0] - 0.05


@pytest.mark.filterwarnings('ignore:.*, less than the radius:UserWarning')
def test_red_radius_scales_steps_in_its_larger_balls():
    phases = RadiusReduction(attack=FIXED).phases()
    assert [phase.step_size for phase in phases] == pytest.approx([8 / 255, 6 / 255, 4 / 255])


def test_a_step_size_says_nothing_about_another_norm():
    with pytest.raises(UserError, match='PGD: step_size 0.0156863 was chosen for Linf.* does not apply to L2'):
        FIXED.with_threat(L2(radius=0.5))
    assert PGD(threat=LINF).with_threat(L2(radius=0.5)) == PGD(threat=L2(radius=0.5))


SHORT = {
    'PGD': lambda: PGD(threat=LINF, steps=3, step_size='2/255'),
    'BIM': lambda: BIM(threat=LINF, steps=7, step_size='1/255'),
    'FGSM': lambda: FGSM(threat=LINF, step_size='7/255'),
    'with_steps': lambda: FIXED.with_steps(1),
    'L2': lambda: PGD(threat=L2(radius=0.5), steps=2, step_size=0.2),
    'Universal': lambda: Universal(threat=LINF, steps=10, step_size='1/255'),
    'ScheduledPGD': lambda: ScheduledPGD(threat=LINF, steps=3, schedule=CosineSchedule(steps=(0.3, 0.02))),
    'Descent': lambda: Descent(threat=LINF, steps=3, step_size='2/255'),
}


@pytest.mark.parametrize('name', SHORT)
def test_steps_shorter_than_the_radius_are_warned_of(name):
    with pytest.warns(UserWarning, match='reach .*, less than the radius .* too weak; raise steps'):
        SHORT[name]()


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_published_settings_are_kept_and_reach_their_radius(path):
    config = Config.fromfile(str(path)).attack.to_dict()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        attack = build(config, ATTACKS)
    if 'step_size' in config:
        assert build(attack.describe(), ATTACKS).step_size == attack.step_size
        assert attack.with_radius(attack.threat.radius) == attack


def test_notes_tell_scaled_steps_and_short_ones():
    attack = file('bim_3_003')
    radii = ['0.03', '16/255', '32/255', '0']
    (note,) = step_notes(attack, attacks_by_radius(attack, radii))
    assert note == (
        'BIM: step_size 0.01 was chosen for radius 0.03, and is scaled with the radius: '
        '0.02092 at 16/255, 0.04183 at 32/255'
    )
    assert step_notes(attack, attacks_by_radius(attack)) == []
    (short,) = step_notes(file('pgd_2_4'), attacks_by_radius(file('pgd_2_4')))
    assert short == (
        'PGD: 2 steps reach 0.02, which is too short to cross the ball from a random start at radius 4/255: '
        'a stronger setting would leave less accuracy; raise steps, or leave step_size out'
    )
    choice = file('random_4')
    (inner,) = step_notes(choice, attacks_by_radius(choice))
    assert inner.startswith('pgd (PGD): 3 steps reach 0.03')
    assert step_notes(PGD(threat=LINF), attacks_by_radius(PGD(threat=LINF), ['1/255'])) == []
    assert step_notes(None, {}) == []


def test_short_steps_are_weak():
    """What is warned of matters: the same passes with the default step leave less."""
    model, (images, labels) = conv_net(3).eval(), batch(3, n=6)
    with pytest.warns(UserWarning, match='too weak'):
        short = BIM(threat=LINF, steps=4, step_size='1/255', keep='lowest_accuracy')
    weak, strong = (attack(model, images, labels) for attack in (short, BIM(threat=LINF, steps=4)))
    assert strong.accuracy.mean() < weak.accuracy.mean()
