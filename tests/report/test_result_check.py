"""results.json of wrong types: one sentence that names the key. Cells that spreadsheets would run."""

import copy
import json
import os
import re

import pytest

from mmadv.errors import UserError
from mmadv.report.csv_table import csv_text, write_csv
from mmadv.report.run import SCHEMA, SCHEMA_VERSION, RunResults, check_agreement, load_results

SCALARS = ('aAcc', 'aAcc_image_mean', 'mAcc', 'mIoU')
METRICS = {**dict.fromkeys(SCALARS, 0.5), 'IoU': [0.5, 0.25], 'Acc': [0.5, 0.25], 'images': 2, 'pixels': 8}
PASS_COUNT = {'total': 10, 'mean_per_image': 5.0}
RADIUS = {'text': '4/255', 'value': 4 / 255}
SIZES = {'aAcc': [0.5, 0.25], 'object_mean': [0.5, 0.25]}
WHOLE = {
    'schema': SCHEMA,
    'schema_version': SCHEMA_VERSION,
    'created': '2024-01-01T00:00:00+00:00',
    'command': 'mmadv test',
    'config': {'file': 'c.py', 'text': ''},
    'checkpoint': {'file': 'w.pth', 'sha256': 'abc'},
    'attack': {'name': 'sea', 'title': 'SEA', 'parameters': {'type': 'WorstCase'}},
    'radii': [RADIUS],
    'seed': 0,
    'caveats': ['one'],
    'dataset': {'type': 'Some', 'size': 2, 'limit': None, 'palette': [[0, 0, 0], [255, 0, 0]]},
    'versions': {'mmadv': '1'},
    'hardware': {'processor': 'p'},
    'seconds': {'total': 1.5},
    'evaluation': {
        'title': 'SEA',
        'ignore_index': 255,
        'classes': ['sky', 'road'],
        'images': 2,
        'excluded': ['void.png'],
        'failed': [{'image': 'a.png', 'reason': 'NaN'}],
        'clean': METRICS,
        'intervals': {'clean': {'aAcc': [0.25, 0.75], 'mIoU': None}},
        'attacked': {
            '4/255': {
                'worst_case': METRICS,
                'members': {'js': METRICS},
                'wins': {'js': {'worst': 1, 'alone': 0}},
                'passes': {'forward': PASS_COUNT, 'backward': PASS_COUNT},
                'minimised': {'value': 0.25, 'lower_bound': 0.125, 'starts': {'js': 0.25}},
            }
        },
        'object_sizes': {
            'edges': [0.01],
            'objects': [1, 2],
            'pixels': [3, 4],
            'clean': SIZES,
            'attacked': {'4/255': SIZES},
        },
        'minimal_radius': {
            'share': 0.5,
            'upper': RADIUS,
            'tolerance': RADIUS,
            'images': 2,
            'not_broken': {'4/255': 0.5},
            'not_broken_at_upper': 0.5,
            'median': 0.25,
            'radii': [0.25],
        },
    },
    'trust': {
        'images': ['a.png'],
        'radius': '4/255',
        'findings': [{'name': 'a', 'passed': False, 'evidence': 'b', 'advice': 'c'}],
    },
    'gradients': {
        'target': {'type': 'ClassMean', 'of': 'training images'},
        'over': 'valid',
        'classes': ['sky'],
        'without_example': ['road'],
        'cosine': 0.5,
        'cosine_present': 0.5,
        'cosine_absent': None,
        'high_frequency': 0.5,
        'image_high_frequency': 0.5,
        'per_image': [{'image': 'a.png', 'cosine': 0.5, 'high_frequency': None}],
        'sheet': {
            'file': 'gradients.png',
            'images': ['a.png'],
            'classes': ['sky'],
            'attack': {'norm': 'L2', 'root_mean_square': 0.1, 'last_radius': 5.5, 'steps': 40},
        },
    },
    'pictures': [{'file': 'pictures/00000.png', 'image': 'a.png', 'kind': 'sample'}],
}
# Read by nobody but whoever looks at the page.
FREE = ('versions', 'hardware', 'parameters', 'per_image')
# May be null: whole parts, and numbers that are undefined.
PARTS = (
    'attack',
    'intervals',
    'wins',
    'minimised',
    'object_sizes',
    'minimal_radius',
    'trust',
    'gradients',
    'sheet',
    'limit',
)
UNDEFINED = {*SCALARS, 'lower_bound', 'median', 'IoU', 'Acc', 'object_mean', 'starts', 'minimised', 'intervals'}
# May be negative.
SIGNED = ('seed', 'ignore_index', 'palette', 'limit', 'gradients')


def check_results(content, where):
    check_agreement(RunResults.from_json(content, where), where)


def places(value, path=()):
    """Yields the path of every entry that is checked."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in entries:
        yield (*path, key)
        if key not in FREE:
            yield from places(item, (*path, key))


PLACES = [path for path in places(WHOLE) if not str(path[0]).startswith('schema')]


def inside(value, path):
    for key in path:
        value = value[key]
    return value


def with_entry(path, value):
    changed = copy.deepcopy(WHOLE)
    inside(changed, path[:-1])[path[-1]] = value
    return changed


def may_be_null(path):
    number = not isinstance(inside(WHOLE, path), (dict, list))
    if number and path[:2] == ('evaluation', 'intervals'):
        return not isinstance(path[-1], int)
    cosines = path[0] == 'gradients' and len(path) == 2
    return (
        path[-1] in PARTS
        or (number and (cosines or bool(UNDEFINED.intersection(path))))
        or (
            path[:2]
            == (
                'evaluation',
                'intervals',
            )
            and not isinstance(path[-1], int)
        )
    )


def test_what_the_tool_writes_passes():
    check_results(WHOLE, 'file')


@pytest.mark.parametrize('value', [None, 1e30, -7, [[]], True, 'text'], ids=repr)
def test_every_entry_of_another_type_or_range_is_refused(value):
    refused = 0
    for place in PLACES:
        old = inside(WHOLE, place)
        if (isinstance(value, str) and isinstance(old, str)) or (isinstance(value, bool) and isinstance(old, bool)):
            continue
        if value is None and may_be_null(place):
            continue
        if value == -7 and not isinstance(old, (dict, list, str, bool)) and set(SIGNED).intersection(place):
            continue
        try:
            check_results(with_entry(place, value), 'file')
        except UserError as error:
            assert str(error).startswith('file')
            refused += 1
        else:
            pytest.fail(f'{place} = {value!r} was accepted')
    assert refused > len(PLACES) / 4


@pytest.mark.parametrize('place', [path for path in PLACES if isinstance(path[-1], str)], ids=str)
def test_every_missing_entry_is_refused_or_optional(place):
    changed = copy.deepcopy(WHOLE)
    del inside(changed, place[:-1])[place[-1]]
    optional = {'caveats', 'trust', 'gradients', 'sheet', 'kind', 'failed', 'intervals', 'wins', 'minimised'}
    optional |= {'object_sizes', 'minimal_radius', 'js', '4/255'}
    if place == ('evaluation', 'attacked', '4/255'):
        with pytest.raises(UserError, match=r'object_sizes\.attacked has a radius that evaluation\.attacked has not'):
            check_results(changed, 'file')
        return
    if place[-1] in optional or place[:2] == ('evaluation', 'intervals') or place == ('seconds', 'total'):
        check_results(changed, 'file')
        return
    with pytest.raises(UserError, match=re.escape(f"a dict with '{place[-1]}'")):
        check_results(changed, 'file')


@pytest.mark.parametrize(
    ('place', 'value', 'sentence'),
    [
        (('evaluation', 'clean', 'mIoU'), 1.5, 'clean.mIoU must be a finite number in [0, 1], or None; found 1.5'),
        (('evaluation', 'clean', 'IoU'), [0.5], 'evaluation.clean.IoU must have a value for each of the 2 classes'),
        (('radii',), [], "evaluation.attacked has the radius '4/255' (text), which is not among .radii"),
        (('evaluation', 'object_sizes', 'edges'), [], 'object_sizes must have a value for each size'),
        (('pictures', 0, 'file'), '../../etc/passwd', 'pictures[0].file must be a file inside the folder'),
        (('gradients', 'sheet', 'file'), '/etc/passwd', 'gradients.sheet.file must be a file inside the folder'),
    ],
)
def test_parts_that_do_not_agree_are_refused(tmp_path, place, value, sentence):
    (tmp_path / 'results.json').write_text(json.dumps(with_entry(place, value)))
    with pytest.raises(UserError, match=re.escape(sentence)):
        load_results(tmp_path)


def test_files_that_hold_no_results(tmp_path):
    path = tmp_path / 'results.json'
    for text, sentence in (
        ('[' * 100_000, 'is not JSON'),
        ('{"a": NaN}', 'is not JSON (NaN is not a number)'),
        ('[]', "is not of the schema 'mmadv/results'"),
        ('7', "is not of the schema 'mmadv/results'"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=re.escape(sentence)):
            load_results(tmp_path)
    path.write_bytes(b'\xff\xfe')
    with pytest.raises(UserError, match='is not JSON'):
        load_results(tmp_path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match='is a named pipe'):
        load_results(tmp_path)


def test_no_cell_is_a_formula(tmp_path):
    rows = [['=HYPERLINK("http://x")', '+1+1', '@SUM(A1)', '-x', '\t=1', 'a=b']]
    rows += [[-0.25, '-0.25', '+3', None, 1e-9, '4/255']]
    assert csv_text(rows) == (
        '"\'=HYPERLINK(""http://x"")",\'+1+1,\'@SUM(A1),\'-x,\'\t=1,a=b\n-0.25,-0.25,+3,,1e-09,4/255\n'
    )
    write_csv(tmp_path / 'a.csv', rows)
    assert (tmp_path / 'a.csv').read_text() == csv_text(rows)
