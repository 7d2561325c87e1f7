"""tools/certify.py on a tiny trained model: its numbers, its determinism and its refusals."""

import csv
import json
import math
import os
import re
import signal

import pytest
import stored_results
from forks import run_together
from mmengine.config import Config

from mmadv.attacks import derive_seed
from mmadv.checkpoints.loading import load_weights
from mmadv.engine.data import Selection, build_dataset
from mmadv.models.adapter import SegmentorAdapter, stack_images
from mmadv.models.building import build_segmentor
from mmadv.report import RunResults
from mmadv.robustness import Certifier, NonFiniteNoisyLogits


def certify(tool, *arguments, out='out'):
    assert tool(['config.py', 'trained.pth', '--sigma', '0.05', '--show', '1', *arguments, '--out', out]) == 0
    return out


def results(project, out):
    return json.loads((project / out / 'results.json').read_text())['evaluation']['certificates']


def per_image(project, out):
    with open(project / out / 'certificates.csv', newline='') as stream:
        return list(csv.DictReader(stream))


def by_hand(project, certifier, seed, index):
    """Returns the certificate of an image of the test data, and its labels."""
    config = Config.fromfile(project / 'config.py')
    segmentor = build_segmentor(config)
    load_weights(segmentor, project / 'trained.pth')
    data = Selection(build_dataset(config.test_dataloader.dataset, 'dataset'), [index])[0]
    sample = data['data_samples']
    (image,) = stack_images([data['inputs']], [sample])
    model = SegmentorAdapter(segmentor.eval(), [sample], 255)
    certificate = certifier(model, image, seed=derive_seed('certify', seed, sample.metainfo['image_name']))
    return certificate, sample.gt_sem_seg.data[0].numpy()


def test_certified_accuracy_falls_with_the_radius_and_is_the_same_for_every_batch_size(project, certify_tool, capsys):
    options = ['--n0', '4', '--n', '100', '--alpha', '0.05', '--tau', '0.9', '0.6', '0.8', '--seed', '3']
    content = results(project, certify(certify_tool, *options))
    rows = content['certified']
    assert [row['tau'] for row in rows] == [0.6, 0.8, 0.9]
    assert rows[0]['radius'] < rows[1]['radius'] < rows[2]['radius']
    for key in ('certified_accuracy', 'certified_mIoU', 'guaranteed_mIoU'):
        values = [row[key] for row in rows]
        assert values == sorted(values, reverse=True) and 0.2 < values[0] <= 1
    assert [row['abstained'] for row in rows] == sorted(row['abstained'] for row in rows)
    for row in rows:
        assert row['guaranteed_mIoU'] <= row['certified_mIoU'] <= content['smoothed']['mIoU'] + 1e-12
        assert row['certified_accuracy'] <= content['smoothed']['aAcc']
    printed = capsys.readouterr().out
    assert f'{100 * rows[0]["certified_accuracy"]:.2f}' in printed and 'clopper-pearson, holm' in printed
    images = per_image(project, 'out')
    assert len(images) == 6 and images[5]['valid_pixels'] == '0' and images[5]['certified 0.6'] == ''
    certifier = Certifier(sigma=0.05, n0=4, n=100, alpha=0.05, taus=(0.6, 0.8, 0.9))
    certificate, labels = by_hand(project, certifier, 3, 1)
    right, valid = certificate.classes == labels, labels != 255
    assert float(images[1]['smoothed']) == (right & valid).sum() / valid.sum()
    for tau, where in zip(certifier.taus, certificate.certified, strict=True):
        assert float(images[1][f'certified {tau:g}']) == (right & where & valid).sum() / valid.sum()
    (picture,) = content['pictures']
    assert (project / 'out' / picture['file']).stat().st_size > 1000
    certify(certify_tool, *options, '--batch-size', '50', '--limit', '2', out='again')
    assert per_image(project, 'again') == [images[0], images[3]]
    assert {path.name for path in (project / 'out').iterdir()} == {
        *('certificates', 'certificates.csv', 'manifest.json', 'object_sizes.csv', 'per_class.csv', 'per_image.csv'),
        *('pictures', 'records.jsonl', 'report.html', 'results.json'),
    }


def test_a_run_that_was_ended_goes_on_in_three_processes(project, certify_tool, capsys, monkeypatch, unused_port):
    options = ['--n0', '2', '--n', '24', '--alpha', '0.05', '--tau', '0.6', '--show', '2']
    certify(certify_tool, *options, out='whole')
    certifier, calls = Certifier.__call__, []

    def ended(self, model, image, *, seed=0):
        calls.append(seed)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return certifier(self, model, image, seed=seed)

    argv = ['config.py', 'trained.pth', '--sigma', '0.05', *options, '--out', 'cut']
    with monkeypatch.context() as patch:
        patch.setattr(Certifier, '__call__', ended)
        assert certify_tool(argv) == 128 + signal.SIGTERM
    error = capsys.readouterr().err
    assert '2 images are done and kept; go on with' in error and f'mmadv certify {" ".join(argv)} --resume' in error
    assert certify_tool(argv) == 2
    assert 'holds the results of an unfinished run' in capsys.readouterr().err
    assert certify_tool([*argv, '--resume', '--alpha', '0.1']) == 2
    assert 'differs in measurements.certificates.alpha' in capsys.readouterr().err
    run_together(certify_tool, [*argv, '--resume'], 3, unused_port, project)
    whole, resumed = RunResults.load(project / 'whole'), RunResults.load(project / 'cut')
    assert resumed.hardware['processes'] == 3 and resumed.evaluation == whole.evaluation
    for name in ('certificates.csv', 'certificates/00003.png', 'pictures/00003.png'):
        assert (project / 'cut' / name).read_bytes() == (project / 'whole' / name).read_bytes()
    assert not (project / 'cut' / 'unfinished').exists()
    assert certify_tool([*argv, '--resume']) == 0
    assert 'nothing is left to do; results: cut' in capsys.readouterr().out


def test_an_image_that_fails_is_listed_and_the_report_takes_the_others(
    project, certify_tool, report_tool, capsys, monkeypatch
):
    certifier, failing = Certifier.__call__, derive_seed('certify', 0, '2.png')

    def fails(self, model, image, *, seed=0):
        if seed == failing:
            raise NonFiniteNoisyLogits
        return certifier(self, model, image, seed=seed)

    monkeypatch.setattr(Certifier, '__call__', fails)
    argv = [
        'config.py',
        'trained.pth',
        '--sigma',
        '0.05',
        '--n',
        '24',
        '--alpha',
        '0.05',
        '--tau',
        '0.6',
        '--limit',
        '3',
    ]
    assert certify_tool([*argv, '--out', 'new']) == 1
    assert 'failed: 2.png: 2.png: the model returns NaN or infinite logits for noisy images' in capsys.readouterr().err
    assert [row['image'] for row in per_image(project, 'new')] == ['0.png', '4.png']
    assert len(results(project, 'new')['pictures']) == 2
    (project / 'old').mkdir()
    (project / 'old/certificates.json').write_text(json.dumps(stored_results.certificates()))
    assert report_tool(['new', 'old', '--out', 'both']) == 0
    printed = capsys.readouterr().out
    line = '| old | hard smoothing, sigma 0.25, n0 10, n 100, alpha 0.001 per image (clopper-pearson, holm) '
    assert f'{line}| 0.1686 | 0.75 | 81.25 | 50.00 | 25.00 | 12.50 |' in printed
    assert '| old | clean | 0 | 1 | - | - | - |' in printed
    assert (project / 'both/certificates.md').read_text() in printed


def test_soft_smoothing_and_bonferroni_are_to_be_had(project, certify_tool):
    options = ['--n', '100', '--alpha', '0.05', '--tau', '0.6', '--limit', '1']
    hard = results(project, certify(certify_tool, *options, '--correction', 'bonferroni'))
    soft = results(project, certify(certify_tool, *options, '--kind', 'soft', out='soft'))
    assert soft['smoothing']['bound'] == 'hoeffding'
    assert soft['certified'][0]['abstained'] >= hard['certified'][0]['abstained']
    two = results(project, certify(certify_tool, *options, '--sides', 'two', out='two'))
    assert (two['smoothing']['sides'], two['smoothing']['correction']) == ('two', 'bonferroni')
    assert hard['smoothing']['sides'] == 'one' and two['certified'][0]['certified_accuracy'] > 0


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['--sigma', '0'], r'--sigma must be a number in \(0, 1\]'),
        (['--tau', '0.3'], r'--tau must be a finite number in \[0.5, 1\); found .0.3.'),
        (['--n', '20'], r'0.png: n = 20 draws cannot certify tau 0.75 .* at least 49 are needed'),
        (['--limit', '0'], '--limit must be an integer in'),
        (['--kind', 'soft', '--bound', 'clopper-pearson'], "soft smoothing has no bound 'clopper-pearson'"),
    ],
)
def test_mistakes_are_told_and_nothing_is_written(arguments, sentence, project, certify_tool, capsys):
    argv = ['config.py', 'trained.pth', '--sigma', '0.1', '--limit', '1', '--out', 'out', *arguments]
    assert certify_tool(argv) == 2
    assert re.search(sentence, capsys.readouterr().err)
    assert not (project / 'out').exists()


def test_pixels_fall_back_to_groups_of_a_hierarchy(project, certify_tool, report_tool, capsys):
    (project / 'groups.json').write_text(json.dumps({'hierarchy': [{'things': ['ground', 'disc']}]}))
    options = ['--n0', '4', '--n', '100', '--alpha', '0.05', '--tau', '0.6', '0.9', '--limit', '2']
    certify(certify_tool, *options, out='flat')
    certify(certify_tool, *options, '--hierarchy', 'groups.json')
    flat, both = results(project, 'flat'), results(project, 'out')
    assert both['smoothing']['hierarchy'] == [{'things': ['ground', 'disc']}]
    for one, other in zip(flat['certified'], both['certified'], strict=True):
        levels = other['levels']
        assert one == {**other, 'levels': None}
        assert levels['certified'][0] == pytest.approx(1 - one['abstained'])
        assert sum(levels['certified']) + levels['abstained'] == pytest.approx(1)
        assert levels['accuracy'][0] == pytest.approx(one['certified_accuracy'])
        gain = levels['accuracy'][0] + levels['accuracy'][1] * (1 - math.log(2) / math.log(3))
        assert levels['information_gain'] == pytest.approx(gain)
    assert both['certified'][0]['levels']['certified'][1] > 0
    assert 'certified at level 1' in capsys.readouterr().out
    assert report_tool(['flat', 'out', '--out', 'sides']) == 0
    assert '| abstained at all levels | information gain |' in capsys.readouterr().out
    for content, sentence in (
        ([{'things': ['box', 'disk']}], "the dataset has no class 'disk' of the group 'things'; did you mean 'disc'"),
        ({'things': ['box']}, '--hierarchy groups.json must define hierarchy as a list of levels'),
    ):
        (project / 'groups.json').write_text(json.dumps({'hierarchy': content}))
        argv = ['config.py', 'trained.pth', '--sigma', '0.05', *options, '--hierarchy', 'groups.json', '--out', 'new']
        assert certify_tool(argv) == 2
        assert sentence in capsys.readouterr().err and not (project / 'new' / 'results.json').exists()
