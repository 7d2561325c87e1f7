"""The comparison of runs in three formats."""

import csv
import io

from mmadv.report.comparison import comma_separated, comparison_rows, latex, markdown


def run(scale, intervals=True):
    def metrics(value):
        return {'aAcc': value, 'aAcc_image_mean': value - 0.1, 'mIoU': None if value < 0.2 else value / 2}

    evaluation = {
        'title': 'SEA_x & co',
        'images': 7,
        'clean': metrics(0.9),
        'attacked': {'4/255': {'worst_case': metrics(scale)}},
    }
    if intervals:
        interval = {'aAcc': [scale - 0.05, scale + 0.05], 'aAcc_image_mean': None, 'mIoU': None}
        evaluation['intervals'] = {'clean': {}, '4/255': interval}
    return {'evaluation': evaluation}


ROWS = comparison_rows({'standard|1': run(0.1), 'robust': run(0.512345, intervals=False)})


def test_markdown():
    assert markdown(ROWS).splitlines() == [
        '| run | attack | radius | images | aAcc, % | ACC (image mean), % | mIoU, % |',
        '|---|---|---|---:|---:|---:|---:|',
        '| standard\\|1 | clean | 0 | 7 | 90.00 | 80.00 | 45.00 |',
        '| standard\\|1 | SEA_x & co | 4/255 | 7 | 10.00 [5.00, 15.00] | 0.00 | - |',
        '| robust | clean | 0 | 7 | 90.00 | 80.00 | 45.00 |',
        '| robust | SEA_x & co | 4/255 | 7 | 51.23 | 41.23 | 25.62 |',
    ]


def test_csv_keeps_all_digits():
    rows = list(csv.DictReader(io.StringIO(comma_separated(ROWS))))
    assert [row['run'] for row in rows] == ['standard|1', 'standard|1', 'robust', 'robust']
    assert float(rows[3]['aAcc']) == 0.512345 and rows[3]['aAcc low'] == ''
    assert (float(rows[1]['aAcc low']), float(rows[1]['aAcc high'])) == (0.1 - 0.05, 0.1 + 0.05)
    assert rows[1]['mIoU'] == ''


def test_latex_escapes_and_separates_runs():
    text = latex(ROWS)
    assert r'SEA\_x \& co' in text and r'aAcc, \%' in text
    body = text.splitlines()
    assert body[0] == r'\begin{tabular}{lllrrrr}' and body[-1] == r'\end{tabular}'
    assert [n for n, line in enumerate(body) if line == r'\midrule'] == [3, 6]
    assert all(line.count(' & ') == 6 for line in body if line.endswith(r'\\'))
