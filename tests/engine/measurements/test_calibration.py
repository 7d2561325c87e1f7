"""Calibration in an evaluation: conditions, records, and whole runs."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmadv.commands.testing import run_test
from mmadv.corruptions import corrupt, corruption_seed
from mmadv.engine.measurements.calibration import Calibration, from_rows, to_rows
from mmadv.engine.predictor import AttackedAtRadius, PredictedGroup
from mmadv.errors import UserError
from mmadv.report import RunResults, load_results
from mmadv.report.calibration import CalibrationSummary, calibration_svg
from mmadv.report.measurement import Outcome
from mmadv.robustness import calibration_metrics, calibration_sums


def model(images):
    """Three classes, whose logits are differences of the channels."""
    return 4 * torch.stack([images[:, 0] - images[:, 1], images[:, 1] - images[:, 2], images[:, 2] - images[:, 0]], 1)


def group():
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (2, 8, 9, 3), dtype=np.uint8)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).double() / 255
    labels = torch.from_numpy(generator.integers(0, 3, (2, 8, 9)))
    labels[1, 0] = 255
    none = torch.zeros(2, dtype=torch.int64)
    attacked = AttackedAtRadius({}, model(images).argmax(1), images.flip(1), none, none, 0.0, {})
    return pixels, PredictedGroup(
        model, ('a.png', 'b.png'), [0, 1], images, labels, 255, model(images).argmax(1), attacked={'4/255': attacked}
    )


CONTEXT = SimpleNamespace(rgb=True, spec=SimpleNamespace(seed=3))


def test_each_condition_has_the_sums_of_its_images():
    pixels, predicted = group()
    measurement = Calibration(bins=5, corruptions=['fog', 'shot_noise'], severity=2)
    values = json.loads(json.dumps(measurement.measure(CONTEXT, predicted)))
    assert list(values[0]) == ['clean', 'corrupted', '4/255']
    for n, name in enumerate(predicted.names):
        corrupted = [
            torch.from_numpy(corrupt(pixels[n], one, 2, seed=corruption_seed(3, name, one, 2))).permute(2, 0, 1) / 255.0
            for one in ('shot_noise', 'fog')
        ]
        images = {'clean': [predicted.images[n]], 'corrupted': corrupted, '4/255': [predicted.images[n].flip(0)]}
        for condition, parts in images.items():
            first, *others = (calibration_sums(model(one[None].double())[0], predicted.labels[n], 5) for one in parts)
            expected, actual = sum(others, first), from_rows(values[n][condition], (3, 5))
            for part in ('confidence', 'classes', 'ranks', 'totals'):
                np.testing.assert_allclose(getattr(actual, part), getattr(expected, part), atol=1e-6)


def test_the_summary_is_of_all_pixels_together():
    _, predicted = group()
    measurement = Calibration(bins=5)
    values = measurement.measure(CONTEXT, predicted)
    records = [SimpleNamespace(measurements={'calibration': value}) for value in values]
    evaluation = SimpleNamespace(classes=('a', 'b', 'c'))
    summary = measurement.summarise(None, Outcome(evaluation, (), records))
    logits, labels = model(predicted.images), predicted.labels
    whole = calibration_sums(logits.transpose(0, 1).flatten(1, 2), labels.flatten(0, 1), 5)
    for name, value in calibration_metrics(whole).items():
        assert summary.conditions['clean'].values[name] == pytest.approx(value, abs=1e-12)
    assert sum(one.pixels for one in summary.conditions['clean'].reliability) == int((labels != 255).sum())
    assert CalibrationSummary.from_json(json.loads(json.dumps(summary.to_json()))) == summary
    assert [row[0] for row in summary.rows()] == ['clean', '4/255']
    svg = calibration_svg('run', summary)
    assert svg.startswith('<svg') and 'mean entropy, nats' in svg


def test_rows_that_are_none_of_the_sums_are_refused():
    _, predicted = group()
    rows = to_rows(calibration_sums(model(predicted.images)[0], predicted.labels[0], 5))
    with pytest.raises(UserError, match=r'a stored calibration has the entry \[2, '):
        from_rows(rows, (2, 5))


def test_runs_agree_with_the_metrics_and_do_not_depend_on_the_batch(tiny, tmp_path, capsys):
    words = [str(tiny / 'config.py'), str(tiny / 'trained.pth'), '--attack', 'pgd', '--eps', '16/255', '--show', '0']
    words += ['--iterations', '2', '--precision', 'float64', '--calibration', '--calibration-corruptions', 'pixelate']
    for batch in ('4', '1'):
        assert run_test([*words, '--batch-size', batch, '--out', str(tmp_path / batch)]) == 0
    assert 'Calibration, 15 bins; entropy in nats' in capsys.readouterr().out
    ours, theirs = (load_results(tmp_path / batch)['evaluation'] for batch in ('4', '1'))
    one, other = (part['calibration']['conditions'] for part in (ours, theirs))
    assert list(one) == ['clean', 'corrupted', '16/255']
    for condition, result in one.items():
        assert result['values'] == pytest.approx(other[condition]['values'], abs=1e-9)
    assert one['clean']['values']['accuracy'] == pytest.approx(ours['clean']['aAcc'])
    assert one['16/255']['values']['accuracy'] == pytest.approx(ours['attacked']['16/255']['worst_case']['aAcc'])
    low, high = one['clean']['intervals']['accuracy']
    assert (low, high) == pytest.approx(ours['intervals']['clean']['aAcc'], abs=1e-9)
    assert 'Calibration and confidence' in (tmp_path / '4' / 'report.html').read_text()
    assert (
        (tmp_path / '4' / 'calibration.csv').read_text().startswith('condition,metric,value,low,high\nclean,accuracy,')
    )
    assert RunResults.load(tmp_path / '1').summary(Calibration).severity == 3


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(bins=0), r'Calibration.bins must be an integer in \[1, 1000\]; found 0'),
        (dict(corruptions=['rain']), "Calibration.corruptions must be the name of a corruption; found 'rain'"),
        (dict(severity=6), r'Calibration.severity must be an integer in \[1, 5\]; found 6'),
    ],
)
def test_mistakes_are_told(arguments, message):
    with pytest.raises(UserError, match=message):
        Calibration(**arguments)
