"""tools/test.py --gradients: where the targets come from, what is written, and what is refused."""

import numpy as np
import pytest
from PIL import Image
from refusals import configure, refused

from mmadv.report import load_results

ARGV = ['config.py', 'trained.pth', '--attack', 'none', '--out', 'out']
ALIGNED = """
custom_imports = dict(imports=['mmadv'])
model.update(type='PAGEncoderDecoder', pag=dict(weight=1.0, over='class', exclude=[0]))
custom_hooks = [dict(type='PAGTargetHook', target=dict({target}))]
"""


def test_other_test_images_stand_for_the_classes_of_a_stock_config(attack_tool, project, capsys):
    assert attack_tool([*ARGV, '--gradients', '3', '--show', '2']) == 0
    results = load_results('out')
    measured = results['gradients']
    assert [row['image'] for row in measured['per_image']] == ['0.png', '2.png', '4.png']
    assert measured['target'] == {'type': 'NearestNeighbour', 'per_class': 8, 'of': 'other test images'}
    assert (measured['over'], measured['classes'], measured['without_example']) == (
        'valid',
        ['ground', 'box', 'disc'],
        [],
    )
    for name in ('cosine', 'high_frequency'):
        assert measured[name] == pytest.approx(np.mean([row[name] for row in measured['per_image']]))
    assert -1 < measured['cosine'] < 1 and 0 < measured['image_high_frequency'] < measured['high_frequency'] < 1
    assert measured['cosine_present'] == pytest.approx(measured['cosine']) and measured['cosine_absent'] is None
    assert measured['sheet']['images'] == ['0.png', '2.png'] and measured['sheet']['classes'] == ['box', 'disc']
    assert measured['sheet']['attack']['last_radius'] == pytest.approx(0.1 * np.sqrt(3 * 32 * 32))
    assert Image.open(project / 'out' / measured['sheet']['file']).width > 500
    assert f'cosine to g           {measured["cosine"]:.3f}' in capsys.readouterr().out


def test_gradients_are_those_of_a_teacher_with_the_same_weights(attack_tool, project):
    (project / 'teacher.py').write_text((project / 'config.py').read_text())
    target = "type='Distillation', config='teacher.py', checkpoint='trained.pth'"
    configure(project, ALIGNED.format(target=target))
    assert attack_tool([*ARGV, '--gradients', '4', '--show', '0']) == 0
    measured = load_results('out')['gradients']
    assert measured['cosine'] == pytest.approx(1, abs=1e-4)
    assert (measured['over'], measured['classes'], measured['sheet']) == ('class', ['box', 'disc'], None)
    assert not (project / 'out' / 'gradients.png').exists()


def test_targets_of_training_are_taken_where_the_config_has_them(attack_tool, project):
    configure(project, ALIGNED.format(target="type='ClassMean', per_class=2"))
    assert attack_tool([*ARGV, '--gradients', '6', '--show', '0']) == 0
    measured = load_results('out')['gradients']
    assert measured['target'] == {'type': 'ClassMean', 'per_class': 2, 'of': 'training images'}
    assert len(measured['per_image']) == 5 and -1 < measured['cosine'] < 1  # without the one that is void throughout


def test_regions_are_measured_by_the_score_that_training_aligns(attack_tool, project):
    target = "type='RegionExemplars', per_class=2"
    configure(project, ALIGNED.format(target=target).replace(", over='class', exclude=[0]", ''))
    assert attack_tool([*ARGV, '--gradients', '3', '--show', '1']) == 0
    measured = load_results('out')['gradients']
    assert measured['target'] == {'type': 'RegionExemplars', 'per_class': 2, 'of': 'training images'}
    assert measured['over'] == 'region' and measured['cosine'] == measured['cosine_present']
    assert measured['cosine_absent'] is None and len(measured['per_image']) == 3
    assert -1 < measured['cosine'] < 1 and 0 < measured['high_frequency'] < 1
    assert measured['sheet']['classes'] == ['box', 'disc']


def test_what_cannot_be_measured_is_refused(attack_tool, project, capsys):
    assert '--gradients must be an integer in [1, 1000000000]' in refused(
        attack_tool, [*ARGV, '--gradients', '0'], project, capsys
    )
    message = '--gradients 6 leaves none of 6 test images to stand for the classes; give a smaller number'
    assert message in refused(attack_tool, [*ARGV, '--gradients'], project, capsys)
