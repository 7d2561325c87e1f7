"""Attacks that are aimed, and attacks on another model than the one that is evaluated."""

import json

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS
from PIL import Image
from tiny_project import runner_for_test

from mmadv.attacks import PGD, FastNewton, Linf, RandomNoise, ama, auto, sea
from mmadv.engine.attack_targets import RemoveClass, ToClass, ToMasks, parse_attack_target, with_targeted
from mmadv.errors import UserError

CLASSES = ('ground', 'box', 'disc')
LABELS = torch.tensor([[[0, 1, 2], [1, 1, 255]]])
PGD_CONFIG = {'type': 'PGD', 'threat': {'type': 'Linf', 'radius': '32/255'}, 'steps': 8, 'keep': 'lowest_accuracy'}


def test_what_is_wanted_and_when_it_is_reached(tmp_path):
    predictions = torch.tensor([[[2, 2, 2], [1, 0, 2]]])
    to_disc = parse_attack_target('class:disc', CLASSES)
    assert to_disc == ToClass(2) and to_disc.targeted
    wanted = to_disc.wanted(LABELS, ['a.jpg'], 255)
    assert wanted.tolist() == [[[2, 2, 2], [2, 2, 255]]]
    assert to_disc.reached(predictions, wanted, 255) == [[3, 5]]
    no_box = parse_attack_target('remove:box', CLASSES)
    assert no_box == RemoveClass(1) and not no_box.targeted
    wanted = no_box.wanted(LABELS, ['a.jpg'], 255)
    assert wanted.tolist() == [[[255, 1, 255], [1, 1, 255]]]
    assert no_box.reached(predictions, wanted, 255) == [[2, 3]]
    (tmp_path / 'sub').mkdir()
    Image.fromarray(np.array([[1, 0, 255], [2, 1, 0]], np.uint8)).save(tmp_path / 'sub' / 'a.png')
    masks = parse_attack_target(f'masks:{tmp_path}', CLASSES)
    wanted = masks.wanted(LABELS, ['sub/a.jpg'], 255)
    assert wanted.tolist() == [[[1, 0, 255], [2, 1, 255]]]
    assert masks.reached(predictions, wanted, 255) == [[0, 4]]
    with pytest.raises(UserError, match=r'b.png is missing'):
        masks.wanted(LABELS, ['sub/b.jpg'], 255)
    with pytest.raises(UserError, match=r'has the size \(2, 3\), its label map \(4, 3\)'):
        masks.wanted(torch.zeros(1, 4, 3, dtype=torch.int64), ['sub/a.jpg'], 255)
    with pytest.raises(UserError, match='holds 2, neither one of 2 classes nor 255'):
        ToMasks(tmp_path, 2).wanted(LABELS, ['sub/a.jpg'], 255)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('class:dics', "no class 'dics'; did you mean 'disc'"),
        ('disc', "must be class:NAME, remove:NAME or masks:DIR; found 'disc'"),
        ('masks:none', 'the folder none does not exist'),
    ],
)
def test_refused_targets(text, message):
    with pytest.raises(UserError, match=message):
        parse_attack_target(text, CLASSES)


def test_every_objective_of_an_attack_is_aimed():
    threat = Linf(radius='4/255')
    assert with_targeted(PGD(threat=threat), targeted=True).objective.targeted
    assert not with_targeted(with_targeted(ama('4/255'), targeted=True), targeted=False).targeted
    both = with_targeted(auto('4/255'), targeted=True)
    assert both.targeted and both == auto('4/255', targeted=True)
    for attack in (RandomNoise(threat=threat), FastNewton()):
        with pytest.raises(UserError, match='follows no objective, so it cannot have a target'):
            with_targeted(attack, targeted=True)
    with pytest.raises(UserError, match='an ensemble has no worst case for a target'):
        with_targeted(sea('4/255', 9), targeted=True)


def evaluated(tiny, tmp_path, loop=None):
    loop = {'type': 'AttackTestLoop', 'attack': PGD_CONFIG, 'limit': 3, **(loop or {})}
    runner = runner_for_test(tiny / 'config.py', tmp_path, loop)
    runner.test()
    metric = runner.test_loop.evaluator.metrics[0]
    json.dumps(metric.evaluation.to_json(), allow_nan=False)
    return metric.evaluation


def test_an_aimed_attack_reaches_what_it_is_aimed_at(tiny, tmp_path):
    targets = ('class:disc', 'remove:disc')
    evaluations = {target: evaluated(tiny, tmp_path / target[:2], {'target': target}) for target in targets}
    for target, evaluation in evaluations.items():
        assert evaluation.title == f'PGD, {target}'
    reached, removed = (evaluation.attacked['32/255'].worst_case for evaluation in evaluations.values())
    clean = evaluations['class:disc'].clean
    assert reached['target_rate'] > 0.5 and removed['target_rate'] > 0.9
    # Aimed at every pixel, the attack ruins all classes; aimed at one, it leaves most of the others.
    assert reached['aAcc'] < removed['aAcc'] < clean['aAcc']
    assert removed.accuracy[2] == pytest.approx(1 - removed['target_rate'])


def test_a_model_transfers_to_itself_and_less_to_another(tiny, tmp_path):
    config = str(tiny / 'config.py')
    torch.manual_seed(5)
    torch.save({'state_dict': MODELS.build(Config.fromfile(config).model).state_dict()}, tmp_path / 'other.pth')
    sources = {
        'same': {'config': config, 'checkpoint': str(tiny / 'trained.pth')},
        'other': {'config': config, 'checkpoint': str(tmp_path / 'other.pth')},
    }
    white = evaluated(tiny, tmp_path / 'white')
    same = evaluated(tiny, tmp_path / 'same', {'source': sources['same']})
    transferred = evaluated(tiny, tmp_path / 'other', {'source': sources['other']})
    ours, theirs = white.attacked['32/255'], same.attacked['32/255']
    assert theirs.worst_case == ours.worst_case
    assert theirs.passes.forward.total == ours.passes.forward.total + 3
    assert transferred.clean == white.clean
    worst = transferred.attacked['32/255'].worst_case['aAcc']
    assert ours.worst_case['aAcc'] < worst - 0.05 and worst <= white.clean['aAcc'] + 0.02
