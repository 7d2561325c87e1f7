"""Stored results with right checksums and wrong content: one sentence each, never a number."""

import copy
import hashlib
import os
import re

import pytest

from mmadv.errors import UserError
from mmadv.evaluation.record_check import check_complete, check_record
from mmadv.evaluation.result_store import FORMAT, ResultStore, decode_lines, encode_line, read_records, write_records

RECORD = {
    'index': 3,
    'image': 'a.png',
    'digest': 'abc',
    'title': 'PGD',
    'ignore_index': 255,
    'passes': {'4/255': [3, 2]},
    'clean': [[0, 5, 6, 7], [2, 1, 2, 3]],
    'attacked': {'4/255': {'attack': [[0, 3, 6, 7], [2, 0, 2, 3]]}},
    'objects': {'sizes': [[0, 1, 10]], 'clean': [[6, 0.6]], 'attacked': {'4/255': {'attack': [[3, 0.3]]}}},
    'reached': {'4/255': [3, 10]},
    'rounded': {'4/255': [[0, 3, 6, 7], [2, 0, 2, 3]]},
    'minimal_radius': [0.01, None, 12, 10],
    'calibration': {
        'clean': {
            'totals': [10, 6, 2.5, 0.5, 1.5, 8.0],
            'confidence': [[12, 10, 6, 8.0]],
            'classes': [[0, 12, 10, 6, 8.0]],
            'ranks': [[200, 10, 4]],
        }
    },
    'region_distance': {'bands': [[10, 6, 3], [4, 2, 1]]},
    'corruptions': {'fog': {'1': [[0, 3, 6, 7], [2, 0, 2, 3]]}},
    'certificates': {
        'smoothed': [[0, 4, 6, 7], [2, 1, 2, 3]],
        'certified': [{'areas': [[0, 3, 4, 7], [2, 0, 0, 3]], 'abstained': [3, 0, 2]}],
    },
}


class Deleted:
    def __str__(self):
        return 'deleted'


DELETED = Deleted()
WRONG = [
    (('index',), 'three', 'record.index must be an integer at least 0'),
    (('index',), -1, 'record.index must be an integer at least 0'),
    (('index',), 1e30, 'record.index must be an integer'),
    (('index',), True, 'record.index must be an integer'),
    (('index',), DELETED, "must be a dict with 'index'"),
    (('image',), ['a.png'], 'image 3: record.image must be a text'),
    (('title',), None, 'record.title must be a text'),
    (('passes', '4/255'), [3], 'passes.4/255 must be 2 integers at least 0; found [3]'),
    (('passes', '8/255'), [3, 2], "record.passes must be of the radii of record.attacked, ['4/255']"),
    (('clean',), {'0': 1}, 'record.clean must be a list'),
    (('clean', 0), [99, 5, 6, 7], 'record.clean must hold each of the classes 0 to 2 at most once; found [99, 2]'),
    (('clean', 0), [2, 5, 6, 7], 'found [2, 2]'),
    (('clean', 0), [0, 5, 6], 'record.clean must be a list'),
    (('clean', 0), [0, 1e30, 6, 7], 'record.clean must be a list'),
    (('clean', 0), [0, 9, 6, 7], 'an intersection of 9 pixels is larger than the prediction or label'),
    (('clean', 0), [0, 5, 6, -7], 'record.clean must be a list'),
    (('clean', 0), [0, True, 6, 7], 'record.clean must be a list'),
    (('clean', 0, 3), 8, 'record.attacked.4/255.attack has other labelled pixels than record.clean'),
    (('attacked',), [], 'record.attacked must be a dict'),
    (('attacked', '4/255'), {}, 'record.attacked.4/255 must name at least one attack'),
    (('attacked', '4/255', 'attack'), 'none', 'record.attacked.4/255.attack must be a list'),
    (('objects', 'clean'), [[1]], 'record.objects.clean must be a list'),
    (('objects', 'attacked'), 7, 'record.objects.attacked must be a dict'),
    (('reached', '4/255'), ['a', 'b'], 'record.reached.4/255[0] must be an integer'),
    (('rounded', '4/255', 0), [0, 3, 6, 6], 'record.rounded.4/255 has other labelled pixels'),
    (('minimal_radius',), [2, None, 1, 1], 'record.minimal_radius[0] must be a finite number in [0, 1]'),
    (('calibration', 'clean', 'totals'), [1], 'record.calibration.clean.totals must be'),
    (('calibration', 'clean', 'ranks'), [[1, 2]], 'record.calibration.clean.ranks must be a list'),
    (('region_distance', 'bands', 0), [-1], 'record.region_distance.bands[0][0] must be an integer at least 0'),
    (('corruptions',), [], 'record.corruptions must be a dict'),
    (('corruptions', 'fog', '1', 0), [0, 3, 6, 6], 'record.corruptions.fog.1 has other labelled pixels'),
    (('certificates', 'smoothed'), 3, 'record.certificates.smoothed must be a list'),
    (('certificates', 'smoothed', 0), [9, 1, 1, 1], 'classes 0 to 2 at most once; found [9, 2]'),
    (('certificates', 'smoothed', 0), [0, 4, 6, 6], 'certificates.smoothed has other labelled pixels'),
    (('certificates', 'certified', 0), [], 'record.certificates.certified[0] must be a dict'),
    (('certificates', 'certified', 0, 'areas'), [[0, 3, 4, 8], [2, 0, 0, 3]], 'certified[0].areas has other labelled'),
    (('certificates', 'certified', 0, 'abstained'), [1], 'abstained must have at most the labelled pixels of each'),
    (('certificates', 'certified', 0, 'abstained'), [1, 2, 0], 'of each class, [7, 0, 3]; found [1, 2, 0]'),
    (('certificates', 'certified', 0, 'abstained'), [1, 2, 1e30], 'abstained[2] must be an integer'),
]


def changed(record, path, value):
    record = copy.deepcopy(record)
    inner = record
    for key in path[:-1]:
        inner = inner[key]
    if value is DELETED:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return record


def test_what_the_tool_writes_passes():
    check_record(RECORD, 3, 'file')
    check_record({'index': 1, 'image': 'b.png', 'failed': 'NaN'}, 3, 'file')
    check_complete([RECORD, {**RECORD, 'index': 4}], 3, 'file')


@pytest.mark.parametrize(('path', 'value', 'sentence'), WRONG, ids=str)
def test_a_wrong_record_is_refused(path, value, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        check_record(changed(RECORD, path, value), 3, 'file')


@pytest.mark.parametrize('value', [None, 7, 1.5, 'text', [], ['a'], {}, {'a': 1}, [[0, 1]], True], ids=repr)
@pytest.mark.parametrize('key', RECORD)
def test_a_record_with_any_entry_of_another_type_is_refused(key, value):
    fitting = {
        'digest': (None, 'text'),
        'image': ('text',),
        'title': ('text',),
        'index': (7,),
        'ignore_index': (7,),
        'objects': (),
        'reached': ({},),
        'rounded': ({},),
    }
    if value in fitting.get(key, ()) and not isinstance(value, bool):
        check_record({**RECORD, key: value}, 3, 'file')
        return
    with pytest.raises(UserError, match='^file'):
        check_record({**RECORD, key: value}, 3, 'file')


def test_records_of_a_complete_run_agree(tmp_path):
    for records, sentence in (
        ([], 'file holds no result of an image'),
        ([RECORD, RECORD], 'file holds image 3 twice'),
        ([RECORD, {'index': 4, 'image': 'b', 'failed': 'NaN'}], 'image 4: the model failed on it'),
        (
            [RECORD, {**changed(RECORD, ('attacked', '4/255', 'other'), RECORD['clean']), 'index': 4}],
            "image 4: the attacks {'4/255': ['attack', 'other']} are not those of the first image",
        ),
    ):
        with pytest.raises(UserError, match=re.escape(sentence)):
            check_complete(records, 3, 'file')


def test_lines_that_nobody_wrote_are_damage():
    deep = b'[' * 100_000 + b']' * 100_000
    for text in (deep, b'NaN', b'{"index":NaN}', b'[1]', b'"a"', b'7', b'null', b'\xff'):
        line = hashlib.blake2b(text, digest_size=8).hexdigest().encode() + b' ' + text + b'\n'
        assert decode_lines(line) == ([], 1)


def test_stores_of_wrong_content_give_one_sentence(tmp_path):
    path = tmp_path / 'records-1.jsonl'
    for header, sentence in (({}, "a dict with 'settings'"), ({'settings': 3}, 'settings must be a dict')):
        path.write_bytes(encode_line({'format': FORMAT, **header}) + encode_line(RECORD))
        with pytest.raises(UserError, match=sentence):
            ResultStore(tmp_path, {}).read()
        with pytest.raises(UserError, match=sentence):
            read_records(path)
    write_records(path, {}, [{'index': [3]}])
    with pytest.raises(UserError, match=r'record\.index must be an integer'):
        ResultStore(tmp_path, {}).read()
    path.unlink()
    path.symlink_to(tmp_path / 'nowhere')
    with pytest.raises(UserError, match='cannot be read: No such file'):
        ResultStore(tmp_path, {}).read()
    path.unlink()
    os.mkfifo(path)
    for read in (
        ResultStore(tmp_path, {}).read,
        lambda: ResultStore(tmp_path, {}).has_results,
        lambda: read_records(path),
    ):
        with pytest.raises(UserError, match='is a named pipe'):
            read()
    path.unlink()
    (tmp_path / 'x.npz').symlink_to('/dev/zero')
    with pytest.raises(UserError, match='is a device'):
        ResultStore(tmp_path, {}).load_arrays('x')
