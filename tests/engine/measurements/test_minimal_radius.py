"""Minimal radii: the bisection on a model whose radii are known, and whole runs."""

import csv
import json
from types import SimpleNamespace

import pytest
import torch

from mmadv.attacks import PGD, Linf
from mmadv.commands.command_line import guarded
from mmadv.commands.testing import run_test
from mmadv.engine.measurements.minimal_radius import Bracket, MinimalRadius, curve_points
from mmadv.engine.predictor import AttackedAtRadius, PredictedGroup
from mmadv.errors import UserError
from mmadv.report import RunResults, load_results
from mmadv.report.measurement import Outcome

ATTACK = PGD(threat=Linf(radius='4/255'), steps=1, step_size='8/255', random_start=False, keep='lowest_accuracy')


def model(images):
    """Pixels above 1/2 are class 1: an image of constant value v, labelled 1, is broken at radius v - 1/2."""
    score = images[:, :1] - 0.5
    return torch.cat([-score, score], dim=1)


def group_of(values, void=()):
    """Images of 2x2 pixels of one value each, labelled 1, without any attack."""
    images = torch.tensor(values, dtype=torch.float64).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).clone()
    labels = torch.ones(len(values), 2, 2, dtype=torch.int64)
    labels[list(void)] = 255
    return group_from(images, labels)


def group_from(images, labels):
    names = [f'{n}.png' for n in range(len(images))]
    return PredictedGroup(model, names, list(range(len(images))), images, labels, 255, model(images).argmax(1))


def measure(measurement, group):
    predictor, spec = SimpleNamespace(attacks={'4/255': ATTACK}), SimpleNamespace(seed=0)
    return measurement.measure(SimpleNamespace(predictor=predictor, spec=spec), group)


@pytest.mark.filterwarnings('ignore:.* is more than twice the radius:UserWarning')
def test_finds_the_radii_that_are_known():
    values = [0.4, 0.5 + 3 / 255, 0.5 + 7.3 / 255, 0.5 + 40 / 255, 0.9]
    measurement = MinimalRadius(upper='32/255', share=0.99, tolerance='0.25/255')
    result = measure(measurement, group_of(values, void=[4]))
    assert result[0] == [0.0, 0.0, 0, 0]  # wrong as it is
    for value, (low, high, forward, backward) in zip(values[1:3], result[1:3], strict=True):
        assert low < value - 0.5 <= high + 1e-12 and high - low <= 0.25 / 255 + 1e-12
        assert forward >= backward > 0
    assert result[3][:2] == [32 / 255, None]
    assert result[4] == [None, None, 0, 0]  # nothing labelled
    evaluation = SimpleNamespace(attacked={'4/255': None, '16/255': None})
    records = [SimpleNamespace(measurements={'minimal_radius': one}) for one in result]
    summary = measurement.summarise(None, Outcome(evaluation, (), records))
    assert summary.not_broken == {'4/255': 0.5, '16/255': 0.25} and summary.not_broken_at_upper == 0.25
    assert (summary.images, summary.broken, len(summary.radii)) == (4, 3, 3)
    assert summary.median == pytest.approx((result[1][1] + result[2][1]) / 2)
    assert summary.passes.backward.total == sum(one[3] for one in result)
    assert '50.00 % within 4/255, 25.00 % within 16/255, 25.00 % within 32/255' in MinimalRadius.text(summary)
    assert curve_points(summary.radii, summary.images)[1] == [100, 75, 50, 25]


@pytest.mark.filterwarnings('ignore:.* is more than twice the radius:UserWarning')
def test_the_radii_of_the_run_are_the_first_bracket():
    group = group_of([0.5 + 7 / 255])
    for radius, broken in (('4/255', False), ('8/255', True)):
        worst = torch.zeros_like(group.labels) if broken else group.labels
        none = torch.zeros(1, dtype=torch.int64)
        group.attacked[radius] = AttackedAtRadius({'attack': worst}, worst, group.images, none, none, 0.0, {})
    measurement = MinimalRadius(upper='32/255', share=1.0, tolerance='1/255')
    ((low, high, *_),) = measure(measurement, group)
    assert 4 / 255 <= low < 7 / 255 <= high <= 8 / 255
    # 6 and 7 of the four radii from 4 to 8 were tried.
    assert [round(255 * value, 9) for value in (low, high)] == [6, 7]


def test_a_failure_above_a_success_is_no_lower_end():
    bracket = Bracket()
    for radius, broken in ((0.0, False), (0.3, False), (0.2, True), (0.1, False)):
        bracket.take(radius, broken)
    assert (bracket.low, bracket.high) == (0.1, 0.2)


@pytest.mark.filterwarnings('ignore:.* is more than twice the radius:UserWarning')
def test_a_share_of_the_pixels_is_enough():
    images = torch.full((1, 1, 10, 10), 0.5 + 2 / 255, dtype=torch.float64)
    images[0, 0, 0, :2] = 1.0
    group = group_from(images, torch.ones(1, 10, 10, dtype=torch.int64))
    for share, broken in ((0.98, True), (0.99, False)):
        result = measure(MinimalRadius(upper='16/255', share=share, tolerance='1/255'), group)
        assert (result[0][1] is not None) == broken


def test_runs_go_on_and_do_not_depend_on_the_batch(tiny, tmp_path, interrupted, capsys):
    words = [str(tiny / 'config.py'), str(tiny / 'trained.pth'), '--attack', 'pgd', '--eps', '8/255', '--show', '0']
    words += ['--iterations', '2', '--precision', 'float64', '--minimal-radius', '96/255']
    words += ['--minimal-share', '0.15', '--minimal-tolerance', '8/255']
    whole, cut = tmp_path / 'whole', tmp_path / 'cut'
    assert run_test([*words, '--out', str(whole), '--batch-size', '4']) == 0
    assert 'images of which 15 % of the pixels are not made wrong:' in capsys.readouterr().out
    with interrupted(2):
        run_test([*words, '--out', str(cut)])
    assert guarded(run_test, [*words[:-1], '4/255', '--out', str(cut), '--resume']) == 2
    assert 'differs in measurements.minimal_radius.tolerance' in capsys.readouterr().err
    assert run_test([*words, '--out', str(cut), '--resume']) == 0
    ours, theirs = load_results(cut), load_results(whole)
    assert json.dumps(ours['evaluation']) == json.dumps(theirs['evaluation'])
    assert (cut / 'minimal_radii.csv').read_bytes() == (whole / 'minimal_radii.csv').read_bytes()
    result = ours['evaluation']['minimal_radius']
    with open(cut / 'minimal_radii.csv', newline='') as stream:
        rows = list(csv.DictReader(stream))
    radii = sorted(float(row['broken at']) for row in rows if row['broken at'])
    assert radii == result['radii'] and 0 < len(radii) == result['broken'] and rows[5]['broken at'] == ''
    worst = ours['evaluation']['attacked']['8/255']
    assert result['not_broken']['8/255'] == sum(radius > 8 / 255 for radius in radii) / 5 + (5 - len(radii)) / 5
    assert worst['worst_case']['images'] == result['images'] == 5
    (svg,) = MinimalRadius.curves({'': RunResults.load(cut).summary(MinimalRadius)})
    assert svg.startswith('<svg') and 'images not broken' in svg
    assert 'Minimal radii' in (cut / 'report.html').read_text()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'share': 0.0}, r'MinimalRadius.share must lie in \(0, 1\], such as 0.99; found 0'),
        (
            {'tolerance': '40/255'},
            'MinimalRadius.tolerance 40/255 must be positive and below MinimalRadius.upper 32/255',
        ),
        ({'upper': 'x'}, "MinimalRadius.upper 'x' is not a number"),
    ],
    ids=repr,
)
def test_refused(options, message):
    with pytest.raises(UserError, match=message):
        MinimalRadius(**{'upper': '32/255', 'share': 0.99, 'tolerance': '1/255', **options})


def test_refused_together(capsys):
    for words, message in (
        (['--attack', 'none', '--minimal-radius', '8/255'], '--minimal-radius needs an attack; name one'),
        (['--attack', 'pgd', '--minimal-share', '0.9'], '--minimal-share is for --minimal-radius UPPER'),
        (
            ['--attack', 'pgd', '--eps', '4/255', '--minimal-radius', '8/255', '--target', 'class:a'],
            'for untargeted attacks on all pixels of the model itself',
        ),
    ):
        assert guarded(run_test, ['c.py', 'w.pth', *words]) == 2
        assert message in capsys.readouterr().err
