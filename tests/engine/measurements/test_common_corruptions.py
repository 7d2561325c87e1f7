"""Common corruptions of an evaluation: against a run whose pipeline corrupts, and against numbers by hand."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_project
import torch
from frost_colours import write_photographs

from mmadv.commands.command_line import guarded
from mmadv.commands.testing import run_test
from mmadv.corruptions import corrupt, corruption_seed
from mmadv.engine.measurements.common_corruptions import CommonCorruptions
from mmadv.engine.predictor import PredictedGroup
from mmadv.errors import UserError
from mmadv.evaluation.image_record import to_counts
from mmadv.report import RunResults, load_results
from mmadv.report.corruptions import CorruptionsSummary
from mmadv.report.measurement import Outcome
from mmadv.robustness import bootstrap, count, metrics

CORRUPTING = """
for _loader in (test_dataloader,):
    _loader['dataset']['pipeline'] = [
        pipeline[0], dict(type='CommonCorruption', corruptions=['shot_noise'], severities=[5], seed=0), *pipeline[1:]
    ]
"""


def red(images):
    """Class 1 where an RGB image is more red than blue."""
    score = images[:, :1] - images[:, 2:]
    return torch.cat([-score, score], dim=1)


def group(images, labels, names=('x/a.png', 'x/b.png')):
    return PredictedGroup(red, names, [0, 1], images, labels, 255, red(images).argmax(1), scored_labels=labels)


def context(rgb):
    return SimpleNamespace(rgb=rgb, spec=SimpleNamespace(seed=4), predictor=SimpleNamespace(num_classes=2))


@pytest.mark.parametrize('rgb', [True, False])
def test_counts_are_those_of_the_corrupted_images(rgb):
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (2, 9, 12, 3), dtype=np.uint8)
    labels = torch.from_numpy(generator.integers(0, 2, (2, 9, 12)))
    labels[0, :2] = 255
    order = slice(None, None, 1 if rgb else -1)
    images = torch.from_numpy(np.ascontiguousarray(pixels[..., order])).permute(0, 3, 1, 2) / 255
    measurement = CommonCorruptions(corruptions=['noise', 'fog'], severities=[5, 2])
    values = measurement.measure(context(rgb), group(images, labels))
    assert list(values[0]) == ['gaussian_noise', 'shot_noise', 'impulse_noise', 'fog']
    for n, name in enumerate(('a.png', 'b.png')):
        for corruption, severity in (('fog', 2), ('shot_noise', 5)):
            seed = corruption_seed(4, name, corruption, severity)
            expected = corrupt(pixels[n], corruption, severity, seed=seed)[..., order]
            prediction = red(torch.from_numpy(expected.copy()).permute(2, 0, 1)[None] / 255).argmax(1)
            counts = count(prediction, labels[n : n + 1], 2)
            stored = to_counts([values[n][corruption][str(severity)]], 2)
            np.testing.assert_array_equal(stored.intersection, counts.intersection)
            np.testing.assert_array_equal(stored.prediction, counts.prediction)


def test_means_and_retention_follow_from_the_counts():
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 2, (6, 5, 5))

    def areas(share):
        predictions = np.where(generator.random(labels.shape) < share, labels, 1 - labels)
        counts = count(predictions, labels, 2)
        return counts, [[[k, *map(int, row)] for k, row in enumerate(np.stack([counts.intersection[n],
            counts.prediction[n], counts.label[n]], axis=1))] for n in range(6)]  # fmt: skip

    clean, clean_areas = areas(0.9)
    parts = {(name, severity): areas(share) for name, severity, share in
             (('fog', '1', 0.8), ('fog', '3', 0.7), ('snow', '1', 0.75), ('snow', '3', 0.6))}  # fmt: skip
    records = [
        SimpleNamespace(
            clean=clean_areas[n],
            measurements={
                'corruptions': {
                    name: {severity: parts[name, severity][1][n] for severity in ('1', '3')} for name in ('snow', 'fog')
                }
            },
        )
        for n in range(6)
    ]
    evaluation = SimpleNamespace(classes=('a', 'b'), clean={'mIoU': metrics(clean)['mIoU']})
    measurement = CommonCorruptions(corruptions=['snow', 'fog'], severities=[1, 3])
    summary = measurement.summarise(None, Outcome(evaluation, (), records))
    mious = {key: metrics(counts)['mIoU'] for key, (counts, _) in parts.items()}
    assert summary.corrupted['fog']['3'].miou == mious['fog', '3']
    assert summary.corrupted['fog']['3'].interval == pytest.approx(bootstrap(parts['fog', '3'][0])['mIoU'], abs=1e-12)
    fog = (mious['fog', '1'] + mious['fog', '3']) / 2
    assert summary.means['fog'].miou == pytest.approx(fog)
    assert summary.means['fog'].retention == pytest.approx(fog / metrics(clean)['mIoU'])
    assert summary.mean.miou == pytest.approx(np.mean(list(mious.values())))
    weights = np.random.default_rng(0).multinomial(6, np.full(6, 1 / 6), size=1000)

    def resampled(counts):
        i, p, t = ((weights @ area) for area in (counts.intersection, counts.prediction, counts.label))
        return (i / (p + t - i)).mean(1)

    ratio = np.mean([resampled(counts) for counts, _ in parts.values()], axis=0) / resampled(clean)
    assert summary.mean.retention_interval == pytest.approx(tuple(np.percentile(ratio, [2.5, 97.5])))
    assert CorruptionsSummary.from_json(json.loads(json.dumps(summary.to_json()))) == summary
    assert [row[0] for row in summary.rows()] == ['snow', 'fog', 'mean']


def test_a_run_agrees_with_a_pipeline_that_corrupts_and_goes_on_after_a_stop(tiny, tmp_path, interrupted, capsys):
    words = [str(tiny / 'config.py'), str(tiny / 'trained.pth'), '--attack', 'none', '--show', '0']
    asked = [*words, '--corruptions', 'shot_noise', 'pixelate', '--severities', '5', '1']
    whole, cut, piped = tmp_path / 'whole', tmp_path / 'cut', tmp_path / 'piped'
    assert run_test([*asked, '--batch-size', '4', '--out', str(whole)]) == 0
    assert 'mIoU under common corruptions, %' in capsys.readouterr().out
    with interrupted(2):
        run_test([*asked, '--out', str(cut)])
    assert guarded(run_test, [*asked[:-1], '2', '--out', str(cut), '--resume']) == 2
    assert 'differs in measurements.corruptions.severities' in capsys.readouterr().err
    assert run_test([*asked, '--out', str(cut), '--resume']) == 0
    ours, theirs = load_results(cut), load_results(whole)
    assert json.dumps(ours['evaluation']) == json.dumps(theirs['evaluation'])
    assert (cut / 'corruptions.csv').read_text().startswith('corruption,severity,aAcc,mIoU,mIoU low,mIoU high\n')
    page = (cut / 'report.html').read_text()
    assert 'Common corruptions' in page and 'retention' in page
    config = tiny_project.write_config(tmp_path / 'corrupting.py', tiny / 'data', CORRUPTING)
    assert run_test([str(config), *words[1:], '--out', str(piped)]) == 0
    corrupted = RunResults.load(cut).summary(CommonCorruptions).corrupted['shot_noise']['5']
    clean = RunResults.load(piped).evaluation.clean
    assert corrupted.miou == clean['mIoU'] and corrupted.accuracy == clean['aAcc']
    assert clean['mIoU'] != RunResults.load(cut).evaluation.clean['mIoU']


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(corruptions=['rain']), "CommonCorruptions.corruptions must be the name of a corruption; found 'rain'"),
        (dict(corruptions=['fog'], severities=[1, 1]), 'CommonCorruptions.severities must be different numbers'),
        (dict(corruptions=['fog'], frost_photographs='x'), 'frost_photographs x is for frost; add frost to'),
        (dict(corruptions=['fog'], scale='both'), "scale must be 'published' or 'image'"),
    ],
)
def test_mistakes_are_told(arguments, message):
    with pytest.raises(UserError, match=message):
        CommonCorruptions(**arguments)


def test_photographs_are_checked_before_the_run_and_decide_the_settings(tmp_path):
    with pytest.raises(UserError, match='CommonCorruptions.frost_photographs: the photograph of frost'):
        CommonCorruptions(corruptions=['frost'], frost_photographs=str(tmp_path)).check(None)
    measurement = CommonCorruptions(corruptions=['frost'], frost_photographs=write_photographs(tmp_path))
    measurement.check(None)
    assert len(measurement.settings(None)['frost']) == 16
    assert 'frost' not in CommonCorruptions(corruptions=['fog']).settings(None)


def test_grey_images_are_refused():
    images = torch.zeros(2, 1, 9, 9)
    with pytest.raises(UserError, match='need images with three channels; found 1'):
        CommonCorruptions(corruptions=['fog']).measure(context(True), SimpleNamespace(images=images))
