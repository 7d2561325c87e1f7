"""--attack universal: trained once, kept, the same for all images."""

import json

import numpy as np
import pytest
from tiny_project import write_config

from mmadv.attacks import Universal
from mmadv.commands.command_line import guarded
from mmadv.commands.testing import run_test
from mmadv.report import load_results

RESIZE = "pipeline.insert(1, dict(type='Resize', scale=(32, 32), keep_ratio=False))\n"
ATTACK = ['--attack', 'universal', '--iterations', '12', '--eps', '0', '24/255', '--show', '0']


@pytest.fixture(scope='module')
def words(tiny, tmp_path_factory):
    """Config and checkpoint of images of one size, whose labels are of two."""
    config = write_config(tmp_path_factory.mktemp('universal') / 'config.py', tiny / 'data', RESIZE)
    return [str(config), str(tiny / 'trained.pth'), '--precision', 'float64']


def test_trained_once_kept_and_stronger_than_noise(words, tmp_path, monkeypatch, interrupted, capsys):
    assert run_test([*words, *ATTACK, '--out', str(tmp_path / 'whole')]) == 0
    assert 'training a universal perturbation at radius 24/255: 12 mini-batches of 8 from 6 of 6' in (
        capsys.readouterr().err
    )
    with interrupted(2):
        run_test([*words, *ATTACK, '--out', str(tmp_path / 'cut'), '--limit', '4'])

    def never(*_, **__):
        raise AssertionError('it was trained before')

    with monkeypatch.context() as patch:
        patch.setattr(Universal, 'train', never)
        # Kept with the unfinished run first, with the finished one then.
        assert run_test([*words, *ATTACK, '--out', str(tmp_path / 'cut'), '--limit', '4', '--resume']) == 0
        options = ['--resume', '--batch-size', '3']
        assert run_test([*words, *ATTACK, '--out', str(tmp_path / 'cut'), *options]) == 0
    whole, cut = (load_results(tmp_path / name) for name in ('whole', 'cut'))
    assert json.dumps(whole['evaluation']) == json.dumps(cut['evaluation'])
    assert cut['universal'] == {
        'training_images': 6,
        'training_data': 6,
        'files': {'24/255': 'universal/24_255.npz'},
    }
    assert (tmp_path / 'cut/universal/24_255.png').is_file()
    arrays = [np.load(tmp_path / name / 'universal/24_255.npz')['perturbation'] for name in ('whole', 'cut')]
    np.testing.assert_array_equal(*arrays)
    assert arrays[0].shape == (3, 32, 32) and 20 / 255 < np.abs(arrays[0]).max() <= 24 / 255 + 1e-9
    noise = ['--attack', 'noise', '--eps', '24/255', '--iterations', '3', '--show', '0']
    assert run_test([*words, *noise, '--out', str(tmp_path / 'noise')]) == 0
    of_noise = load_results(tmp_path / 'noise')['evaluation']['attacked']['24/255']['worst_case']
    of_universal = whole['evaluation']['attacked']['24/255']
    assert of_universal['worst_case']['aAcc'] < of_noise['aAcc'] - 0.02
    assert of_universal['passes']['backward']['total'] == 0
    assert whole['evaluation']['attacked']['0']['worst_case'] == whole['evaluation']['clean']


def test_one_perturbation_of_a_box_for_all_images(words, tmp_path):
    box = ['--attack', 'universal', '--iterations', '8', '--eps', '1', '--show', '0', '--by-distance']
    box += ['--region', 'box:0.25,0.25,0.25,0.5']
    assert run_test([*words, *box, '--out', str(tmp_path / 'out')]) == 0
    perturbation = np.load(tmp_path / 'out/universal/1.npz')['perturbation']
    inside = np.zeros((32, 32), bool)
    inside[8:16, 8:24] = True
    assert not perturbation[:, ~inside].any() and np.abs(perturbation[:, inside]).max() > 0.5
    evaluation = load_results(tmp_path / 'out')['evaluation']
    assert evaluation['attacked']['1']['worst_case']['aAcc'] < evaluation['clean']['aAcc']
    near, *_, far = (n for n, pixels in enumerate(evaluation['region_distance']['pixels']) if pixels)
    attacked, clean = (evaluation['region_distance'][name] for name in ('attacked', 'clean'))
    lost = [clean[band] - attacked['1'][band] for band in (near, far)]
    assert lost[0] > max(lost[1], 0.01)


def test_refused(tiny, words, tmp_path, capsys):
    def sentence(arguments):
        assert guarded(run_test, [*arguments, '--out', str(tmp_path / 'out')]) == 2
        assert not (tmp_path / 'out').exists() or not list((tmp_path / 'out').rglob('*.jsonl'))
        return capsys.readouterr().err

    plain = [str(tiny / 'config.py'), str(tiny / 'trained.pth')]
    result = sentence([*plain, *ATTACK])
    assert 'a universal perturbation needs images of one size' in result and '.png is 32x' in result
    assert '--check needs an attack that perturbs each image by itself' in sentence([*plain, *ATTACK, '--check'])
    by_labels = sentence([*words, *ATTACK[:-3], '8/255', '--region', 'class:box'])
    assert '--region class:box needs an attack that perturbs each image by itself' in by_labels
    assert "no 'train_dataloader'" in sentence([*words, *ATTACK, '--cfg-options', 'train_dataloader=None'])
