"""--attack universal-patch and patch: trained once, stored as a picture, read again, scored outside its place."""

import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmadv.attacks import Patch, derive_seed
from mmadv.attacks.pasting import masks
from mmadv.commands.command_line import guarded
from mmadv.commands.testing import run_test
from mmadv.engine.attack_regions import PatchRegion, note_regions
from mmadv.report import load_results

SETTINGS = 'size=(10, 10), scale=(0.25, 0.4), steps={steps})\n'


@pytest.fixture(scope='module')
def words(tiny, tmp_path_factory):
    """The command line up to the attack, and the folder of attack files."""
    root = tmp_path_factory.mktemp('patch')
    (root / 'all.py').write_text("attack = dict(type='UniversalPatch', " + SETTINGS.format(steps=15))
    (root / 'own.py').write_text("attack = dict(type='Patch', " + SETTINGS.format(steps=6))
    plain = [str(tiny / 'config.py'), str(tiny / 'trained.pth'), '--precision', 'float64', '--show', '0', '--attack']
    return plain, root


def test_a_patch_is_trained_stored_as_a_picture_and_read_again(words, tmp_path, capsys):
    plain, root = words

    def evaluated(name, *more):
        assert run_test([*plain, str(root / 'all.py'), *more, '--out', str(tmp_path / name)]) == 0
        return load_results(tmp_path / name)

    trained = evaluated('trained', '--by-distance', '--batch-size', '4')
    printed = capsys.readouterr()
    assert 'training a patch at radius 1: 15 mini-batches of 8 from 6 of 6 training images' in printed.err
    assert 'the patch of 10x10 pixels was trained on 6 of 6 training images' in printed.out
    assert (trained['region'], trained['score']) == ('patch', 'rest')
    assert trained['patch']['files'] == {'1': 'patch/patch.npz'}
    picture = tmp_path / 'trained/patch/patch.png'
    assert '<h2' in (tmp_path / 'trained/report.html').read_text() and picture.is_file()
    again = evaluated('again', '--patch', str(picture), '--by-distance', '--batch-size', '1')
    assert json.dumps(again['evaluation']) == json.dumps(trained['evaluation'])
    assert again['patch'] | {'given': None} == trained['patch'] | {'training_images': 0, 'training_data': 0}
    noise = np.random.default_rng(0).integers(0, 256, (10, 10, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / 'noise.png'), noise)
    random = evaluated('random', '--patch', str(tmp_path / 'noise.png'))
    accuracy = [one['evaluation']['attacked']['1']['worst_case']['aAcc'] for one in (trained, random)]
    assert accuracy[0] < accuracy[1] - 0.01
    near, *_, far = (n for n, pixels in enumerate(trained['evaluation']['region_distance']['pixels']) if pixels)
    clean, attacked = (trained['evaluation']['region_distance'][name] for name in ('clean', 'attacked'))
    assert clean[near] - attacked['1'][near] > max(clean[far] - attacked['1'][far], 0.01)


def test_a_patch_of_its_own_for_each_image(words, tmp_path):
    plain, root = words
    assert run_test([*plain, str(root / 'own.py'), '--score', 'all', '--out', str(tmp_path / 'out')]) == 0
    result = load_results(tmp_path / 'out')
    attacked = result['evaluation']['attacked']['1']
    assert attacked['worst_case']['aAcc'] < result['evaluation']['clean']['aAcc']
    assert attacked['passes']['backward']['mean_per_image'] == 6
    assert (result['score'], result['patch']) == ('all', None)


def test_the_scored_pixels_are_those_outside_the_pasted_rectangle():
    """At the size of the input, and in a label map of twice that size."""
    attack = Patch(size=(3, 4), scale=(0.3, 0.6))
    for factor in (1, 2):
        labels = torch.zeros(1, 8 * factor, 10 * factor, dtype=torch.uint8)
        sample = SegDataSample(gt_sem_seg=PixelData(data=labels), metainfo={'image_name': 'a.png'})
        images = torch.zeros(1, 3, 8, 10)
        note_regions(images, [sample], PatchRegion(attack, 7), 'rest', 255)
        inside = masks(images, attack.placements((8, 10), [derive_seed(7, 'a.png')]))[0, 0]
        expected = inside.repeat_interleave(factor, 0).repeat_interleave(factor, 1)
        assert torch.equal(sample.gt_sem_seg.data[0] == 255, expected)


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        (['patch', '--eps', '8/255'], 'Patch: a patch may have any colour, so its threat model is Linf with radius 1'),
        (['patch', '--region', 'class:box'], 'Patch draws the place of the patch itself, so it takes no region'),
        (['patch', '--check'], '--check needs an attack with a radius, which a patch has not'),
        (['patch', '--minimal-radius', '8/255'], '--minimal-radius needs an attack with a radius'),
        (['patch', '--patch', 'none.png'], "--patch: 'none.png' is missing or is no picture"),
        (['universal-patch', '--target', 'class:box'], '--target needs an attack that perturbs each image by itself'),
    ],
)
def test_mistakes_are_told(more, message, words, tmp_path, capsys):
    assert guarded(run_test, [*words[0], *more, '--out', str(tmp_path / 'out')]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_a_picture_is_for_the_universal_patch(words, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / 'grey.png'), np.full((4, 4, 3), 128, np.uint8))
    arguments = [*words[0], 'pgd', '--eps', '8/255', '--patch', str(tmp_path / 'grey.png')]
    assert guarded(run_test, [*arguments, '--out', str(tmp_path / 'out')]) == 2
    assert '--patch is for the attack UniversalPatch; name that attack, or leave it out' in capsys.readouterr().err
