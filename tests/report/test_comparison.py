"""The comparison of runs in three formats."""

import csv
import io
from types import SimpleNamespace

from mmadv.report.comparison import comparison_data, comparison_table
from mmadv.report.evaluation import Evaluation, MetricValues, PassCount, Passes, RadiusResult


def run(scale, intervals=True):
    def values(value):
        scalars = {'aAcc': value, 'aAcc_image_mean': value - 0.1, 'mIoU': None if value < 0.2 else value / 2}
        return MetricValues(scalars=scalars, iou=(), accuracy=(), images=7, pixels=70)

    interval = {'aAcc': (scale - 0.05, scale + 0.05), 'aAcc_image_mean': None, 'mIoU': None}
    evaluation = Evaluation(
        title='SEA_x & co',
        ignore_index=255,
        classes=(),
        images=7,
        excluded=(),
        clean=values(0.9),
        attacked={'4/255': RadiusResult(values(scale), {}, Passes(PassCount(1, 1.0), PassCount(1, 1.0)))},
        intervals={'clean': {}, '4/255': interval} if intervals else None,
    )
    return SimpleNamespace(evaluation=evaluation)


RUNS = {'standard|1': run(0.1), 'robust': run(0.512345, intervals=False)}


def test_markdown():
    assert comparison_table(RUNS).markdown().splitlines() == [
        '| run | attack | radius | images | aAcc, % | ACC (image mean), % | mIoU, % |',
        '|---|---|---|---:|---:|---:|---:|',
        '| standard\\|1 | clean | 0 | 7 | 90.00 | 80.00 | 45.00 |',
        '| standard\\|1 | SEA_x & co | 4/255 | 7 | 10.00 [5.00, 15.00] | 0.00 | - |',
        '| robust | clean | 0 | 7 | 90.00 | 80.00 | 45.00 |',
        '| robust | SEA_x & co | 4/255 | 7 | 51.23 | 41.23 | 25.62 |',
    ]


def test_csv_keeps_all_digits():
    rows = list(csv.DictReader(io.StringIO(comparison_data(RUNS).csv())))
    assert [row['run'] for row in rows] == ['standard|1', 'standard|1', 'robust', 'robust']
    assert float(rows[3]['aAcc']) == 0.512345 and rows[3]['aAcc low'] == ''
    assert (float(rows[1]['aAcc low']), float(rows[1]['aAcc high'])) == (0.1 - 0.05, 0.1 + 0.05)
    assert rows[1]['mIoU'] == ''


def test_latex_escapes_and_separates_runs():
    text = comparison_table(RUNS).latex()
    assert r'SEA\_x \& co' in text and r'aAcc, \%' in text
    body = text.splitlines()
    assert body[0] == r'\begin{tabular}{lllrrrr}' and body[-1] == r'\end{tabular}'
    assert [n for n, line in enumerate(body) if line == r'\midrule'] == [3, 6]
    assert all(line.count(' & ') == 6 for line in body if line.endswith(r'\\'))
