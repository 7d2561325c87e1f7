"""The tables of docs/annealed_margin.md: their arithmetic, and that they are those of the stored results."""

import json
from pathlib import Path

import annealed_margin_report as report
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def case(tmp_path):
    accuracy = {
        'sea/masked_ce 300 0': [0.5, 0.9],
        'sea/balanced_ce 300 0': [0.6, 0.4],
        'sea/js 300 0': [0.7, 0.7],
        'sea/masked_spherical 300 0': [0.8, 0.8],
        'ama 100 0': [0.4, 0.4],
        'ama 100 1': [0.2, 0.6],
        'ama/max 100 1': [0.3, 0.8],
    }
    runs = {}
    for key, values in accuracy.items():
        attack, steps, seed = key.split()
        runs[key] = dict(attack=attack, steps=int(steps), seed=int(seed), accuracy=values, forward=[300, 304])
    path = tmp_path / 'case.json'
    record = dict(case='net_1', title='Net', radius='1/255', clean=[0.9, 0.7], images=['a', 'b'], runs=runs)
    path.write_text(json.dumps(record))
    return report.Results(path)


def test_worst_case_is_per_image_and_seeds_are_averaged(case):
    np.testing.assert_allclose(case.accuracy('SEA', 300), [0.5, 0.4])
    np.testing.assert_allclose(case.accuracy('AMA', 100), [0.3, 0.5])
    assert case.accuracy('AMA', 30) is None and case.accuracy('SEA, 3 losses', 300) is None
    assert case.passes('SEA', 300) == 4 * 302 and case.passes('AMA', 100) == 302
    row = report.comparison([case]).splitlines()[2]
    assert row.split(' | ')[:4] == ['| Net, 1/255', '2', '80.00', '45.00 (1208)']
    assert '| -5.00 [-20.00, +10.00] |' in row


def test_adaptive_has_the_mean_and_the_largest_number_of_passes(case):
    run = dict(attack='adaptive', steps=120, seed=0, accuracy=[0.3, 0.5], forward=[65, 127])
    record = {**case.record, 'runs': {**case.record['runs'], 'adaptive 120 0': run}, 'adaptive_choice': False}
    case.record, case.runs = record, list(record['runs'].values())
    row = report.adaptive([case]).splitlines()[2]
    assert row.startswith(
        '| Net, 1/255 | report | 2 | 80.00 | 45.00 (1208) | - | 40.00 (96, at most 127; seeds: 1) | - |'
    )
    assert row.endswith('| -5.00 [-20.00, +10.00] | - | - |')


def test_regret_is_above_the_best_of_all_runs_of_each_image(case):
    # The best of all are 0.2 and 0.4; seed 1 of AMA has 0.2 and 0.7 here.
    case.record['runs']['ama 100 1']['accuracy'] = [0.2, 0.7]
    assert case.regret('AMA', 100) == pytest.approx({0: 10, 1: 15})
    assert case.regret('SEA', 300) == pytest.approx({0: 15})
    ama, sea = report.regrets([case]).splitlines()[2:]
    assert ama == '| AMA | 302 | 2 | - | - | - | 1 | 12.50 | 15.00 (Net, 1/255, seed 1) |'
    assert sea == '| SEA | 1208 | 1 | - | - | - | 1 | 15.00 | 15.00 (Net, 1/255, seed 0) |'
    case.record['case'] = 'pspnet_at_12'
    ama, sea = report.regrets([case]).splitlines()[2:]
    assert ama == '| AMA | 302 | 2 | 1 | 12.50 | 15.00 (Net, 1/255, seed 1) | - | - | - |' and sea.endswith('seed 0) |')


def test_transformers_are_compared_without_sea(case):
    run = dict(attack='auto', steps=400, seed=0, accuracy=[0.2, 0.3], forward=[406, 406])
    case.record['runs']['auto 400 0'] = run
    case.runs = list(case.record['runs'].values())
    assert len(report.transformers([case]).splitlines()) == 2  # the header
    case.record['case'] = 'segformer_1'
    row = report.transformers([case]).splitlines()[2]
    assert row == '| Net, 1/255 | 2 | 80.00 | 40.00 | - | 25.00 | +15.00 [+10.00, +20.00] |'


@pytest.mark.parametrize(
    ('name', 'chosen'),
    [
        ('pspnet_at_12', {'AMA', 'AMA, masked', 'auto', 'adaptive'}),
        ('segmenter_at_8', {'auto', 'adaptive'}),
        ('segmenter_at_held_out_8', set()),
        ('segmenter_camvid_clean_1', set()),
        ('demo_standard_training_12', {'adaptive'}),
    ],
)
def test_the_sets_of_the_choice_are_known(case, name, chosen):
    case.record.update(case=name, adaptive_choice=name.startswith('demo'))
    attacks = ('AMA', 'AMA, masked', 'auto', 'adaptive', 'SEA', 'APGD')
    assert {attack for attack in attacks if case.chosen_for(attack)} == chosen


def test_a_part_is_exchanged_at_the_same_seeds(case):
    whole, other = report.exchanged([case], {'ama/max': 'max'}).splitlines()[2:]
    assert whole == '| AMA | 40.00 |  |'
    assert other == '| max | 55.00 | +15.00 [+10.00, +20.00] |'


def test_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(1)
    bounds = [report.interval(rng.normal(3, 1, 40)) for _ in range(60)]
    assert 0.85 <= np.mean([low < 3 < high for low, high in bounds]) <= 1
    assert report.interval(np.array([2.0, 2.0, 2.0])) == (2.0, 2.0)


def test_the_documents_hold_the_tables_of_the_stored_results():
    tables = report.sections()
    assert sorted(name for names in report.DOCUMENTS.values() for name in names) == sorted(tables)
    for document, names in report.DOCUMENTS.items():
        text = document.read_text(encoding='utf-8')
        assert report.filled(text, {name: tables[name] for name in names}) == text


def test_missing_marks_are_named():
    with pytest.raises(SystemExit, match='has no lines <!-- here: written by'):
        report.filled('nothing', {'here': 'a table'})
