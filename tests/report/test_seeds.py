"""Statistics over runs that differ in the seed alone."""

import csv
import io
import math
from dataclasses import replace
from statistics import stdev

import pytest
from stored_results import content

from mmadv.report.run import AttackSettings, CheckpointFile, RunResults
from mmadv.report.seeds import obstacle, run_lines, seeds_data, seeds_of, seeds_table

SCALES = (1.0, 0.96, 0.92)


def run(scale=1.0, seed=0):
    return RunResults.from_json(content(scale=scale, seed=seed))


RUNS = {f'seed {seed}': run(scale, seed) for seed, scale in enumerate(SCALES)}
LINES = list(run_lines(RUNS).values())


def test_mean_and_sample_deviation_of_each_attack_and_radius():
    table = seeds_table(LINES)
    assert table.caption == 'Mean ± sample standard deviation over 3 seeds, %'
    assert table.header[:4] == ('radius', 'attack', 'aAcc', 'ACC (image mean)')
    rows = {row[:2]: row[2:] for row in table.rows}
    assert list(rows) == [
        ('0', 'clean'),
        *((radius, name) for radius in ('4/255', '8/255') for name in ('js', 'masked_ce', 'SEA (paper: 4 losses)')),
    ]
    assert rows['0', 'clean'][0] == '90.00 ± 0.00'
    assert rows['4/255', 'masked_ce'][0] == '48.00 ± 2.00'  # 50, 48 and 46 %
    assert rows['8/255', 'js'][0] == '25.00 ± 1.00'  # 26, 25 and 24 %
    assert rows['4/255', 'SEA (paper: 4 losses)'][4] == '24.00 ± 1.00'  # the greedy mIoU, which only ensembles have
    assert rows['4/255', 'masked_ce'][4] is None
    for text in (table.text(), table.markdown(), table.latex()):
        assert '48.00 ± 2.00' in text


def test_csv_has_fractions_in_full_precision():
    rows = list(csv.DictReader(io.StringIO(seeds_data(LINES).csv())))
    assert (rows[2]['attack'], rows[2]['radius'], rows[2]['seeds']) == ('masked_ce', '4/255', '3')
    values = [0.5 * scale for scale in SCALES]
    assert math.isclose(float(rows[2]['mIoU mean']), sum(values) / 3)
    assert math.isclose(float(rows[2]['mIoU deviation']), stdev(values))
    assert rows[2]['mIoU_greedy mean'] == ''


def test_a_metric_that_one_run_lacks_has_no_mean():
    lines = [[('4/255', 'js', {'mIoU': value})] for value in (0.5, None)]
    assert seeds_table(lines).rows == (('4/255', 'js', '-'),)
    assert seeds_data(lines).rows == (('4/255', 'js', 2, None, None),)


ONE = RUNS['seed 1']
OTHER_WEIGHTS = CheckpointFile('w.pth', 'x')
OTHER_ATTACK = AttackSettings('sea', 'SEA (paper: 4 losses)', {'type': 'WorstCase', 'attacks': {}})


@pytest.mark.parametrize(
    ('other', 'sentence'),
    [
        (None, 'need at least two runs; found a alone'),
        (run(), 'need another seed for each run; a and b both have 0'),
        (replace(ONE, attack=OTHER_ATTACK), 'b differs from a in the attack'),
        (
            replace(ONE, checkpoint=CheckpointFile('w.pth', 'x'), precision='float64'),
            'in the checkpoint, the precision',
        ),
        (replace(ONE, sweep='shared'), 'b differs from a in the sweep'),
        (replace(ONE, config=replace(ONE.config, text='')), 'b differs from a in the config'),
        (replace(ONE, dataset=replace(ONE.dataset, limit=1)), 'b differs from a in the images'),
        (replace(ONE, radii=ONE.radii[:1]), 'b differs from a in the radii'),
        (replace(ONE, versions={'mmadv': '2'}), 'b differs from a in the versions'),
    ],
)
def test_other_runs_have_none(other, sentence):
    runs = {'a': run(), **({} if other is None else {'b': other})}
    assert sentence in obstacle(runs)
    assert seeds_of(runs) is None


def test_runs_without_an_attack_have_none():
    clean = {name: replace(one, attack=None) for name, one in RUNS.items()}
    assert obstacle(clean) == 'statistics over seeds need an attack; seed 0 has none'


def test_what_decides_nothing_may_differ():
    other = replace(ONE, batch_size=7, versions={**ONE.versions, 'python': '4'}, command='x', created='y')
    assert obstacle({'a': run(), 'b': other}) is None
