"""Runs compared image by image, against numbers worked out by hand."""

import csv
import io
from types import SimpleNamespace

import pytest
from PIL import Image

from mmadv.commands.paired_runs import StoredRun, common_images, paired_data, paired_rows, paired_table
from mmadv.errors import UserError
from mmadv.evaluation import ImageRecord
from mmadv.report.budget import draw_budget

SCHEMES = {'red': 'RadiusReduction', 'const': 'APGD'}


def run(name, scheme, steps, correct, first=0, classes=('a', 'b'), radius='4/255', digest='d'):
    """A run whose attacks leave so many of ten pixels correct on each image, all of class a."""
    apgd = {'type': 'APGD', 'steps': steps}
    member = apgd if scheme == 'const' else {'type': 'RadiusReduction', 'attack': apgd}
    parameters = {'type': 'WorstCase', 'attacks': dict.fromkeys(correct, member)}
    records = {
        first + n: ImageRecord(
            index=first + n,
            image=f'{first + n}.png',
            digest=f'{digest}{first + n}',
            title='SEA',
            ignore_index=255,
            passes={},
            clean=[],
            attacked={
                radius: {key: [[0, one, one, 10], [1, 0, 10 - one, 0]] for key, one in zip(correct, row, strict=True)}
            },
        )
        for n, row in enumerate(zip(*correct.values(), strict=True))
    }
    evaluation = SimpleNamespace(classes=classes, attacked={radius: None})
    return StoredRun(
        name, SimpleNamespace(attack=SimpleNamespace(parameters=parameters), evaluation=evaluation), records
    )


ONE = run('one', 'red', 50, {'js': [4, 6, 8], 'ce': [5, 5, 9]})
TWO = run('two', 'red', 100, {'js': [6, 5], 'ce': [2, 7]}, first=1)
THREE = run('three', 'const', 50, {'js': [9, 9, 9]})


def test_rows_are_of_the_common_images_and_against_the_first_run():
    rows = {(row['run'], row['attack']): row for row in paired_rows([ONE, TWO, THREE])}
    assert common_images([ONE, TWO, THREE]) == [1, 2]
    assert list(rows) == [
        *(('one', attack) for attack in ('js', 'ce', 'worst case')),
        *(('two', attack) for attack in ('js', 'ce', 'worst case')),
        ('three', 'worst case'),
    ]
    accuracy = {key: row['aAcc_image_mean'] for key, row in rows.items()}
    assert accuracy['one', 'worst case'] == pytest.approx((0.5 + 0.8) / 2)
    assert accuracy['two', 'worst case'] == pytest.approx((0.2 + 0.5) / 2)
    difference = rows['two', 'worst case']['aAcc_image_mean difference']
    assert difference == pytest.approx(-0.3)
    # Both images lose 0.3, so every draw of images does.
    assert rows['two', 'worst case']['aAcc_image_mean interval'] == pytest.approx((-0.3, -0.3))
    low, high = rows['two', 'js']['aAcc_image_mean interval']
    assert (low, high) == pytest.approx((-0.3, 0.0))  # js: 6 and 8 against 6 and 5
    assert rows['one', 'js']['mIoU difference'] is None
    assert [rows[key]['scheme'] for key in (('one', 'js'), ('three', 'worst case'))] == ['red-ε', 'const-ε']
    assert [row['iterations'] for row in rows.values()] == [50] * 3 + [100] * 3 + [50]


def test_tables_and_figure(tmp_path):
    rows = paired_rows([ONE, TWO, THREE])
    table = paired_table(rows).markdown().splitlines()
    assert table[0].startswith('| radius | run | scheme | iterations | attack | ACC (image mean), % | less one [95 %]')
    assert table[4].startswith('| 4/255 | one | red-ε | 50 | worst case | 65.00 |  |')
    assert '| two | red-ε | 100 | worst case | 35.00 | -30.00 [-30.00, -30.00] |' in table[7]
    read = list(csv.DictReader(io.StringIO(paired_data(rows).csv())))
    assert float(read[5]['aAcc_image_mean difference low']) == pytest.approx(-0.3)
    assert read[0]['mIoU difference'] == '' and read[0]['images'] == '2'
    draw_budget(rows, tmp_path / 'budget.png')
    assert Image.open(tmp_path / 'budget.png').size == (1200, 888)


@pytest.mark.parametrize(
    ('other', 'message'),
    [
        (run('far', 'red', 50, {'js': [1]}, first=9), 'one, far have no image in common'),
        (
            run('moved', 'red', 50, {'js': [1]}, digest='e'),
            r'moved and one: 0.png \(number 0\) or its label is not',
        ),
        (run('c', 'red', 50, {'js': [1]}, classes=('a', 'c')), 'c has other classes than one'),
        (run('r', 'red', 50, {'js': [1]}, radius='8/255'), 'one, r have no radius in common'),
    ],
    ids=lambda value: value.name if isinstance(value, StoredRun) else '',
)
def test_what_cannot_be_compared_is_refused(other, message):
    with pytest.raises(UserError, match=message):
        paired_rows([ONE, other])
