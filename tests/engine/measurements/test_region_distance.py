"""Accuracy by the distance from the region of an attack, on maps whose distances are known."""

import json
from types import SimpleNamespace

import pytest
import torch

from mmadv.attacks import PGD, Linf
from mmadv.commands.command_line import guarded
from mmadv.commands.testing import run_test
from mmadv.engine.measurements.region_distance import EDGES, DistanceSummary, RegionDistance
from mmadv.engine.predictor import AttackedAtRadius, PredictedGroup
from mmadv.engine.spec import EvaluationSpec
from mmadv.errors import UserError
from mmadv.report import load_results
from mmadv.report.measurement import Outcome

WIDTH = 300


def group():
    """One row of pixels, whose region is its first pixel: pixel x is at distance x; the second image has no region."""
    labels = torch.zeros(2, 1, WIDTH, dtype=torch.int64)
    labels[0, 0, 5] = 255
    regions = torch.zeros(2, 1, WIDTH, dtype=torch.bool)
    regions[0, 0, 0] = True
    clean, worst = torch.zeros_like(labels), torch.zeros_like(labels)
    clean[0, 0, 20] = 1
    worst[0, 0, :40] = 1
    none = torch.zeros(2, dtype=torch.int64)
    attacked = AttackedAtRadius({'attack': worst}, worst, None, none, none, 0.0, {})
    names, images = ('a', 'b'), torch.zeros(2, 3, 1, WIDTH)
    return PredictedGroup(
        None, names, [0, 1], images, labels, 255, clean, attacked={'8/255': attacked}, regions=regions
    )


def test_pixels_are_counted_by_their_distance():
    measurement = RegionDistance()
    values = json.loads(json.dumps(measurement.measure(None, group())))
    assert values[1] is None  # and is not stored
    records = [SimpleNamespace(measurements={'region_distance': values[0]}), SimpleNamespace(measurements={})]
    evaluation = SimpleNamespace(attacked={'8/255': None})
    summary = measurement.summarise(None, Outcome(evaluation, (), records))
    assert summary.edges == EDGES and summary.images == 1
    assert summary.pixels == (6, 8, 16, 32, 64, 128, 44)  # distances 1 to 7 but 5, 8 to 15, ...
    assert summary.clean == (1, 1, 15 / 16, 1, 1, 1, 1)
    assert summary.attacked == {'8/255': (0, 0, 0, 24 / 32, 1, 1, 1)}
    assert DistanceSummary.from_json(json.loads(json.dumps(summary.to_json()))) == summary
    assert summary.table().rows[2] == ('16 to 32', 16, '93.75', '0.00')
    assert summary.intervals == {'clean': (None,) * 7, '8/255': (None,) * 7}  # of one image
    RegionDistance.check_summary(summary, evaluation, 'x')
    with pytest.raises(UserError, match='x.attacked has a radius that evaluation.attacked has not'):
        RegionDistance.check_summary(summary, SimpleNamespace(attacked={}), 'x')


def test_a_run_prints_and_stores_it(tiny, tmp_path, capsys):
    words = [str(tiny / 'config.py'), str(tiny / 'trained.pth'), '--attack', 'fgsm', '--eps', '64/255', '--show', '0']
    assert guarded(run_test, [*words, '--by-distance', '--out', str(tmp_path / 'none')]) == 2
    assert '--by-distance needs --region or a patch; give one, or leave --by-distance out' in capsys.readouterr().err
    words += ['--region', 'class:box', '--by-distance']
    assert run_test([*words, '--out', str(tmp_path / 'out')]) == 0
    assert 'Accuracy by distance from the region in pixels, %' in capsys.readouterr().out
    evaluation = load_results(tmp_path / 'out')['evaluation']
    result, worst = evaluation['region_distance'], evaluation['attacked']['64/255']['worst_case']
    assert sum(result['pixels']) == worst['pixels']
    correct = sum(n * (a or 0) for n, a in zip(result['pixels'], result['attacked']['64/255'], strict=True))
    assert correct / worst['pixels'] == pytest.approx(worst['aAcc'])
    assert (
        (tmp_path / 'out' / 'region_distance.csv')
        .read_text()
        .startswith('distance,pixels,aAcc clean,aAcc 64/255,low clean')
    )


def test_intervals_are_those_of_resampled_images():
    """Two images of one band, one right and one wrong: a resample has the accuracy 0, 1/2 or 1."""
    bands = [[[10, 10, right]] + [[0, 0, 0]] * 6 for right in (0, 10)]
    records = [SimpleNamespace(measurements={'region_distance': {'bands': one}}) for one in bands]
    summary = RegionDistance().summarise(None, Outcome(SimpleNamespace(attacked={'8/255': None}), (), records))
    assert summary.attacked['8/255'][0] == 0.5
    assert summary.intervals['8/255'] == ((0, 1), *[None] * 6) and summary.intervals['clean'][0] == (1, 1)
    assert summary.table().rows[0] == ('to 8', 20, '100.00 [100.00, 100.00]', '50.00 [0.00, 100.00]')


def test_a_region_is_needed():
    attack = PGD(threat=Linf(radius=0.1))
    with pytest.raises(UserError, match='RegionDistance needs test_cfg.region or a patch'):
        EvaluationSpec(attack=attack, measurements=(RegionDistance(),))
