"""Attacks inside a region: what changes, what is scored, and what is refused."""

import json

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmadv.attacks import PGD, Box, GaussianNoise, Linf
from mmadv.attacks.result import AttackResult, joined
from mmadv.commands.command_line import guarded
from mmadv.commands.testing import run_test
from mmadv.engine.attack_regions import note_regions, parse_attack_region, regions_of
from mmadv.engine.spec import EvaluationSpec
from mmadv.errors import UserError
from mmadv.report import load_results

CLASSES = ('ground', 'box', 'disc')


def sample(labels):
    return SegDataSample(gt_sem_seg=PixelData(data=torch.tensor([labels], dtype=torch.uint8)))


def test_regions_of_a_box_and_of_classes():
    labels = torch.tensor([[0, 1, 1, 255], [2, 1, 0, 0]])
    regions = ('box:0,0.5,0.5,0.5', 'class:box', 'except:box')
    pixels = {
        text: parse_attack_region(text, CLASSES).of_image(labels, '0.png', (2, 4)).int().tolist() for text in regions
    }
    assert pixels == {
        'box:0,0.5,0.5,0.5': [[0, 0, 1, 1], [0, 0, 0, 0]],
        'class:box': [[0, 1, 1, 0], [0, 1, 0, 0]],
        'except:box': [[1, 0, 0, 1], [1, 0, 1, 1]],
    }


@pytest.mark.parametrize('score', ['rest', 'all'])
def test_the_region_becomes_void_if_only_the_rest_is_scored(score):
    samples = [sample([[0, 1], [2, 1]]), sample([[0, 0], [2, 255]])]
    note_regions([torch.zeros(3, 2, 2)] * 2, samples, parse_attack_region('class:box', CLASSES), score, 255)
    expected = [[0, 255], [2, 255]] if score == 'rest' else [[0, 1], [2, 1]]
    assert samples[0].gt_sem_seg.data.tolist() == [expected]
    assert samples[1].gt_sem_seg.data.tolist() == [[[0, 0], [2, 255]]]
    assert regions_of(samples, (2, 2)).int().tolist() == [[[[0, 1], [0, 1]]], [[[0, 0], [0, 0]]]]
    # At the size of a larger input, each pixel of the label map is a block.
    assert regions_of(samples[:1], (4, 4))[0, 0].int().tolist() == [[0, 0, 1, 1]] * 4


def test_joined_results_are_those_of_one_batch():
    def result(start):
        numbers = torch.arange(start, start + 2)
        images = numbers.view(-1, 1, 1, 1).float()
        member = AttackResult(images, images[:, 0].long(), numbers.double(), numbers, numbers)
        return AttackResult(
            images, images[:, 0].long(), numbers.double(), numbers, numbers, {'a': member}, {'b': numbers}
        )

    whole = joined([result(0), result(2)])
    assert whole.images.flatten().tolist() == whole.members['a'].accuracy.tolist() == [0, 1, 2, 3]
    assert whole.parts['b'].tolist() == whole.forward_passes.tolist() == [0, 1, 2, 3]


def test_a_run_changes_the_region_alone_and_scores_the_rest(tiny, tmp_path):
    words = [str(tiny / 'config.py'), str(tiny / 'trained.pth'), '--attack', 'pgd', '--eps', '64/255', '--show', '0']
    words += ['--iterations', '4', '--precision', 'float64', '--region']
    runs = {}
    for name, more in {
        'rest': ['class:box', '--batch-size', '4'],
        'single': ['class:box', '--batch-size', '1'],
        'all': ['class:box', '--score', 'all'],
        'box': ['box:0.25,0.25,0.5,0.5'],
    }.items():
        assert run_test([*words, *more, '--out', str(tmp_path / name)]) == 0
        runs[name] = load_results(tmp_path / name)
    rest, whole, box = (runs[name]['evaluation'] for name in ('rest', 'all', 'box'))
    assert json.dumps(rest) == json.dumps(runs['single']['evaluation'])
    assert (runs['rest']['region'], runs['rest']['score'], runs['all']['score']) == ('class:box', 'rest', 'all')
    assert rest['title'].endswith('inside class:box')
    assert rest['clean']['Acc'][1] is None and whole['clean']['Acc'][1] is not None
    assert max(rest['clean']['pixels'], box['clean']['pixels']) < whole['clean']['pixels']
    attacked = [one['attacked']['64/255']['worst_case']['aAcc'] for one in (whole, rest, box)]
    assert attacked[0] < attacked[1] <= rest['clean']['aAcc'] and attacked[2] < box['clean']['aAcc']


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--region', 'box:0.5,0,0.6,1'], "--region 'box:0.5,0,0.6,1': Box: top + height must be at most 1"),
        (['--region', 'circle:1'], '--region must be box:TOP,LEFT,HEIGHT,WIDTH, class:NAME or except:NAME'),
        (['--region', 'class:car'], "--region: the dataset has no class 'car'"),
        (['--score', 'all'], '--score is for --region or a patch; give one of them, or leave it out'),
        (['--region', 'class:box', '--check'], '--check is for untargeted attacks on all pixels of the model itself'),
        (['--region', 'class:box', '--minimal-radius', '8/255'], 'leave out --region or --minimal-radius'),
    ],
)
def test_mistakes_are_told(words, message, tiny, tmp_path, capsys):
    start = [str(tiny / 'config.py'), str(tiny / 'trained.pth'), '--attack', 'pgd', '--eps', '8/255']
    assert guarded(run_test, [*start, *words, '--out', str(tmp_path / 'out')]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('attack', 'message'),
    [
        (None, 'test_cfg.region needs an attack; name one'),
        (GaussianNoise(sigma=0.1), 'GaussianNoise has no radius'),
        (
            PGD(threat=Linf(radius=0.1, region=Box(top=0, left=0, height=1, width=0.5))),
            'test_cfg.region would replace the region of the attack',
        ),
    ],
)
def test_attacks_that_take_no_region(attack, message):
    with pytest.raises(UserError, match=message):
        EvaluationSpec(attack=attack, region='class:box')
