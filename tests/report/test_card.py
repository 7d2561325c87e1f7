"""Robustness cards side by side, and what changed between two of them, from numbers made by hand."""

import json
from dataclasses import replace

import pytest
from browser import Browser, find_browser

from mmadv.commands.main import main
from mmadv.errors import UserError
from mmadv.report.card import CARD, Card, CardFinding, CardPart, CardRow, Cost
from mmadv.report.card_comparison import Number, changes, changes_text, differences, headline, summary_table, wins_table
from mmadv.report.card_page import comparison_page, cost_table
from mmadv.report.run import CheckpointFile


def row(condition, value, interval=None, metric='mIoU'):
    return CardRow(condition, {metric: value}, {metric: interval})


def part(*rows, words=('--attack', 'none'), findings=()):
    return CardPart(title='A part', words=words, command='test', images=8, passes={}, rows=rows, findings=findings)


def card(clean=(0.6, 0.5, 0.7), attacked=(0.3, 0.2, 0.4), ece=0.1, passed=True, **changed):
    parts = {
        'clean': part(row('clean', clean[0], clean[1:])),
        'auto': part(
            row('4/255', attacked[0], attacked[1:]), row('8/255', 0.1, (0.1, 0.1)), words=('--attack', 'auto')
        ),
        'corruptions': part(row('mean', 0.5, (0.4, 0.6)), row('fog', 0.2, (0.1, 0.3))),
        'region': part(row('clean', 0.61, (0.5, 0.7)), row('4/255', None)),
        'certificates': part(row('smoothed', 0.6), row('0.0809', 0.5, None, 'certified_accuracy')),
        'calibration': part(row('clean', ece, (0.0, 0.2), 'ece')),
        'checks': part(row('4/255', 0.25), findings=(CardFinding('gradients are not zero', passed, '0.0 %'),)),
    }
    values = dict(
        budget='quick',
        config='config.py',
        checkpoint=CheckpointFile('w.pth', 'abc'),
        dataset='Some',
        size=100,
        limit=8,
        data='0123',
        classes=('sky', 'road'),
        seed=0,
        versions={'mmadv': '1'},
        parts=parts,
        left_out={'transfer': 'no <second> model'},
    )
    return Card(**{**values, **changed})


def test_a_card_is_read_as_it_was_written(tmp_path):
    (tmp_path / CARD).write_text(card().text())
    assert Card.load(tmp_path) == card()


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'schema': 'other'}, "is not of the schema 'mmadv/card'; give a folder that mmadv card wrote"),
        ({'schema_version': 9}, 'has schema version 9, this mmadv reads 1'),
        ({'seed': -1}, r'card\.json\.seed must be'),
        ({'size': float('nan')}, r'is not JSON \(NaN is not a number\); run mmadv card again'),
    ],
)
def test_refused_cards(tmp_path, change, message):
    (tmp_path / CARD).write_text(json.dumps({**json.loads(card().text()), **change}))
    with pytest.raises(UserError, match=message):
        Card.load(tmp_path)


def test_a_line_has_one_number_for_each_condition():
    line = headline(card())
    assert {key[:2]: number.value for key, number in line.items()} == {
        ('clean', 'clean'): 0.6,
        ('auto', '4/255'): 0.3,
        ('auto', '8/255'): 0.1,
        ('corruptions', 'mean'): 0.5,
        ('certificates', '0.0809'): 0.5,
        ('calibration', 'clean'): 0.1,
    }
    table = summary_table({'mine': card()})
    assert table.header[2:] == (
        *('clean', 'auto 4/255', 'auto 8/255', 'corruptions', 'certificates 0.0809 certified accuracy'),
        *('calibration clean ECE', 'checks passed'),
    )
    assert table.rows[0][:4] == ('mine', '8', '60.00 [50.00, 70.00]', '30.00 [20.00, 40.00]')
    assert table.rows[0][-1] == '1 of 1'


@pytest.mark.parametrize(
    ('one', 'other', 'beyond'),
    [
        (Number(0.5, (0.4, 0.6)), Number(0.7, (0.65, 0.75)), True),
        (Number(0.5, (0.4, 0.6)), Number(0.6, (0.55, 0.65)), False),  # 0.6 lies in the interval of 0.5
        (Number(0.5, (0.45, 0.55)), Number(0.6, (0.5, 0.7)), False),  # 0.5 lies in the interval of 0.6
        (Number(0.5, (0.4, 0.6)), Number(0.65, (0.58, 0.7)), True),  # the intervals overlap, the numbers are outside
        (Number(0.5, None), Number(0.5001, None), True),
        (Number(0.5, None), Number(0.5, None), False),
    ],
)
def test_beyond_the_intervals(one, other, beyond):
    assert one.beyond(other) == other.beyond(one) == beyond


def test_who_wins_where():
    robust = card(clean=(0.55, 0.45, 0.65), attacked=(0.5, 0.45, 0.55), ece=0.3)
    rows = {line[0]: line[1:] for line in wins_table({'plain': card(), 'robust': robust}).rows}
    assert rows['clean'] == ('plain', 'robust', '60.00 [50.00, 70.00]', '55.00 [45.00, 65.00]', 'no')
    assert rows['auto 4/255'] == ('robust', 'plain', '50.00 [45.00, 55.00]', '30.00 [20.00, 40.00]', 'yes')
    assert rows['auto 8/255'][0] == 'tie' and rows['auto 8/255'][-1] == 'no'
    assert rows['calibration clean ECE'][0] == 'plain'  # a lower error is better
    assert 'region 4/255' not in rows  # it is undefined


def test_what_changed():
    old, new = card(), card(clean=(0.65, 0.6, 0.7), attacked=(0.1, 0.05, 0.15), ece=0.1, passed=False)
    new = replace(new, checkpoint=CheckpointFile('w.pth', 'def'))
    assert [(change.key[:2], change.beyond) for change in changes(old, new)] == [
        (('clean', 'clean'), False),
        (('auto', '4/255'), True),
    ]
    assert changes_text(old, new) == [
        'the weights differ',
        'all versions are the same',
        '11 numbers are compared: 1 changed beyond the intervals, 1 changed within them, 9 are equal',
        'the sanity check "gradients are not zero" fails now (0.0 %)',
    ]


def test_cards_of_other_settings_get_a_note():
    other = card(seed=3, data='9999')
    assert differences({'a': card(), 'b': card()}) == []
    assert differences({'a': card(), 'b': other}) == ['the content of the images', 'seed: a: 0; b: 3']


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    more = {
        'old': card(),
        'new': card(attacked=(0.1, 0.05, 0.15)),
        'paper': card(budget='paper', limit=None),
        'others': card(data='9999'),
    }
    for name, one in more.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / CARD).write_text(one.text())
    (tmp_path / 'run').mkdir()
    return tmp_path


def test_report_of_cards(folders, capsys):
    assert main(['report', 'old', 'new', '--out', 'both']) == 0
    assert '| auto 4/255 | old | new | 30.00 [20.00, 40.00] | 10.00 [5.00, 15.00] | yes |' in capsys.readouterr().out
    assert {path.name for path in (folders / 'both').iterdir()} == {
        *('comparison.md', 'comparison.csv', 'comparison.tex', 'comparison.html', 'manifest.json')
    }
    lines = (folders / 'both/comparison.csv').read_text().splitlines()
    assert lines[0].startswith('model,images,clean,clean low,clean high,auto 4/255,')
    assert lines[2].startswith('new,8,0.6,0.5,0.7,0.1,0.05,0.15,')
    assert 'no &lt;second&gt; model' in (folders / 'both/comparison.html').read_text()
    assert main(['report', 'old', 'new', '--changes', '--out', 'changed']) == 0
    assert '| auto | 4/255 | mIoU | 30.00 [20.00, 40.00] | 10.00 [5.00, 15.00] | worse |' in capsys.readouterr().out
    assert main(['report', 'old', 'old', '--names', 'a', 'b', '--changes']) == 0
    assert 'Nothing changed beyond the intervals.' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('words', 'sentence'),
    [
        (['old', 'run'], 'result folder run has no card, and another folder has one'),
        (['run', '--changes'], 'result folder run has no card (card.json)'),
        (['old', 'new', '--paired'], '--paired is for results of mmadv test'),
        (['old', '--changes'], '--changes compares two cards of one model; found 1'),
        (['old', 'paper', '--changes'], 'the cards old and paper differ in budget ("quick" then, "paper" now)'),
        (['old', 'others', '--changes'], 'the cards old and others differ in data ("0123" then, "9999" now)'),
    ],
    ids=' '.join,
)
def test_reports_that_are_refused(folders, capsys, words, sentence):
    before = sorted(folders.rglob('*'))
    assert main(['report', *words, '--out', 'out']) == 2
    assert sentence in capsys.readouterr().err
    assert sorted(folders.rglob('*')) == before


def test_cost_adds_up():
    costs = {
        'a': Cost('A', images=3, forward=10, backward=4, once=0, seconds=30.0, actual=60.0),
        'b': Cost('B', images=2, forward=1, backward=0, once=16, seconds=90.0),
    }
    table = cost_table(costs)
    assert table.rows[0] == ('A', 3, 10, 4, '-', '0.50', '1.0')
    assert table.rows[-1] == ('in all', '-', 3 * 10 + 2 + 16, 3 * 4 + 16, '-', '2.0', '-')


@pytest.mark.skipif(find_browser() is None, reason='no Chromium is installed (apt-get install chromium-headless-shell)')
def test_the_comparison_fits_a_phone(tmp_path):
    page = tmp_path / 'page.html'
    long = 'a_long_name_of_a_model_without_a_single_space_in_it_as_folders_have'
    page.write_text(comparison_page({long: card(), 'other': card(seed=1)}))
    with Browser(find_browser(), tmp_path / 'profile') as browser:
        for width in (375, 1200):
            browser.open(page, width, 800)
            assert browser.evaluate('document.documentElement.scrollWidth') <= width
