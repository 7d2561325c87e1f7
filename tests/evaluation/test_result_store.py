"""The store: what was written once is read back, whatever cut the file short or damaged it."""

import errno
import json
import os
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmadv.errors import UserError
from mmadv.evaluation.image_record import to_areas, to_counts
from mmadv.evaluation.result_store import (
    ResultStore,
    decode_lines,
    encode_line,
    first_difference,
    read_records,
    write_records,
)
from mmadv.robustness import Counts

SETTINGS = {'seed': 0, 'attack': {'type': 'PGD', 'steps': 3}, 'radii': ['4/255', '8/255']}


def record(index):
    return {'index': index, 'image': f'größe/{index}.png', 'clean': [[0, index, 2, 3], [7, 1, 1, 1]]}


def filled(folder, indexes, run=SETTINGS):
    store = ResultStore(folder, run)
    for index in indexes:
        store.append(record(index))
    store.close()
    return store


def only_file(folder):
    (path,) = folder.glob('records-*')
    return path


def test_what_is_appended_is_read_in_order(tmp_path):
    assert ResultStore(tmp_path / 'none', SETTINGS).read() == {}
    assert not (tmp_path / 'none').exists()
    filled(tmp_path / 's', [4, 1])
    store = filled(tmp_path / 's', [3])
    assert store.has_results and store.read() == {index: record(index) for index in (1, 3, 4)}
    assert list(store.read()) == [1, 3, 4]
    store.remove()
    assert not store.has_results and not (tmp_path / 's').exists()


def test_a_file_cut_at_any_byte_gives_the_whole_lines_before_it(tmp_path):
    filled(tmp_path, range(4))
    path = only_file(tmp_path)
    data = path.read_bytes()
    ends = [n + 1 for n, byte in enumerate(data) if byte == ord('\n')]
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        store = ResultStore(tmp_path, SETTINGS)
        whole = sum(end <= length for end in ends)
        assert store.read() == {index: record(index) for index in range(max(whole - 1, 0))}
        assert store.damaged == 0
        assert store.has_results == (whole > 1)
    path.write_bytes(data[:-5])
    filled(tmp_path, [3])  # the next session writes a file of its own
    assert ResultStore(tmp_path, SETTINGS).read() == {index: record(index) for index in range(4)}


def test_a_damaged_byte_never_gives_a_wrong_result_and_is_counted(tmp_path):
    filled(tmp_path, range(4))
    path = only_file(tmp_path)
    data = path.read_bytes()
    header = data.index(b'\n') + 1
    generator = random.Random(0)
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= generator.randrange(1, 256)
        path.write_bytes(changed)
        store = ResultStore(tmp_path, SETTINGS)
        actual = store.read()
        assert all(actual[index] == record(index) for index in actual)
        # A line break that is lost joins two lines; the last one leaves a line that looks unfinished.
        assert len(actual) >= 2 if position >= header else not actual
        assert store.damaged or position == len(data) - 1


def test_damaged_lines_are_told_once_and_by_one_process_of_a_machine(tmp_path, monkeypatch, capsys):
    filled(tmp_path, range(3))
    path = only_file(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"index":1', b'"index":7'))
    store = ResultStore(tmp_path, SETTINGS)
    assert list(store.read()) == list(store.read()) == [0, 2]
    assert capsys.readouterr().err == f'{path} holds 1 damaged line; the lost results are computed again\n'
    monkeypatch.setenv('LOCAL_RANK', '1')
    ResultStore(tmp_path, SETTINGS).read()
    assert capsys.readouterr().err == ''


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=80), st.integers(0, 3))
def test_any_bytes_between_the_lines_are_skipped(junk, place):
    lines = [encode_line(record(index)) for index in range(3)]
    lines.insert(place, junk + b'\n')
    values, _ = decode_lines(b''.join(lines))
    assert values == [record(index) for index in range(3)]


@pytest.mark.parametrize(
    ('now', 'difference'),
    [
        ({**SETTINGS, 'seed': 1}, r'seed \(0 then, 1 now\)'),
        ({**SETTINGS, 'attack': {'type': 'PGD', 'steps': 4}}, r'attack.steps \(3 then, 4 now\)'),
        ({**SETTINGS, 'attack': None}, r'attack \(\{"type": "PGD", "steps": 3\} then, nothing now\)'),
        ({**SETTINGS, 'radii': ['4/255', '9/255']}, r'radii.1 \("8/255" then, "9/255" now\)'),
        ({**SETTINGS, 'more': 'x' * 99}, r'more \(nothing then, "x{59}... now\)'),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path, now, difference):
    filled(tmp_path, [0])
    with pytest.raises(UserError, match=f'differs in {difference}; use the settings of that run'):
        ResultStore(tmp_path, now).read()
    assert first_difference(SETTINGS, json.loads(json.dumps(SETTINGS))) is None


def test_settings_are_compared_as_json(tmp_path):
    filled(tmp_path, [0], {'size': (3, 4), 'kind': int})
    assert list(ResultStore(tmp_path, {'size': [3, 4], 'kind': int}).read()) == [0]


def test_a_full_disk_is_a_sentence_and_loses_nothing_before_it(tmp_path, monkeypatch):
    store = filled(tmp_path, [0, 1])
    write, room = os.write, [30]

    def full(descriptor, data):
        if room[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(descriptor, data[: room[0]])
        room[0] -= written
        return written

    with monkeypatch.context() as patch:
        patch.setattr(os, 'write', full)
        with pytest.raises(UserError, match='cannot be written to .*: No space left on device; make room there'):
            store.append(record(2))
        assert room == [0]
    assert list(store.read()) == [0, 1]
    store.append(record(3))
    assert list(store.read()) == [0, 1, 3]


def test_arrays_are_whole_or_missing(tmp_path, capsys):
    store = ResultStore(tmp_path / 's', SETTINGS)
    arrays = {'image': np.random.default_rng(0).random((4, 5, 3), dtype=np.float32), 'name': np.array([1, 2])}
    store.save_arrays('example', arrays)
    path = tmp_path / 's' / 'example.npz'
    assert [item.name for item in path.parent.iterdir()] == ['example.npz']
    actual = store.load_arrays('example')
    assert list(actual) == list(arrays) and all((actual[name] == arrays[name]).all() for name in arrays)
    assert store.load_arrays('other') is None
    assert capsys.readouterr().err == ''
    data = path.read_bytes()
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        assert store.load_arrays('example') is None
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(f'{path} cannot be read (') and said[0].endswith('; the lost results are computed again')
    assert not store.has_results


def test_results_of_a_complete_run_are_gone_on_with_unless_an_unfinished_one_is_of_other_settings(tmp_path):
    finished = tmp_path / 'records.jsonl'
    write_records(finished, SETTINGS, [record(0), record(1)])
    assert read_records(finished) == (SETTINGS, [record(0), record(1)])
    assert list(ResultStore(tmp_path / 's', SETTINGS, finished).read()) == [0, 1]
    with pytest.raises(UserError, match=r'seed \(0 then, 5 now\)'):
        ResultStore(tmp_path / 's', {**SETTINGS, 'seed': 5}, finished).read()
    filled(tmp_path / 's', [7], {**SETTINGS, 'seed': 5})
    assert list(ResultStore(tmp_path / 's', {**SETTINGS, 'seed': 5}, finished).read()) == [7]
    finished.write_bytes(finished.read_bytes().replace(b'"index":1', b'"index":2'))
    with pytest.raises(UserError, match='are damaged; repair them by resuming mmadv test'):
        read_records(finished)
    with pytest.raises(UserError, match='none.jsonl cannot be read: No such file'):
        read_records(tmp_path / 'none.jsonl')


@given(st.lists(st.lists(st.integers(0, 9), min_size=12, max_size=12), min_size=1, max_size=3))
def test_areas_hold_all_counts(rows):
    table = np.array(rows).reshape(len(rows), 3, 4)
    counts = Counts(table[:, 0], table[:, 0] + table[:, 1], table[:, 0] + table[:, 2])
    areas = [to_areas(counts.select([n])) for n in range(len(rows))]
    back = to_counts(json.loads(json.dumps(areas)), 4)
    assert (back.intersection == counts.intersection).all()
    assert (back.prediction == counts.prediction).all() and (back.label == counts.label).all()


def test_a_file_of_a_complete_run_that_is_cut_at_a_line_end_is_no_whole_one(tmp_path, capsys):
    path = tmp_path / 'records.jsonl'
    write_records(path, SETTINGS, [record(0), record(1), record(2)])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b''.join(lines[:-2]))
    with pytest.raises(UserError, match=r'are cut short: 2 of 3 images are missing; make them by resuming mmadv test'):
        read_records(path)
    assert list(ResultStore(tmp_path / 'store', SETTINGS, path).read()) == [0]
    assert f'{path} holds 2 damaged lines; the lost results are computed again' in capsys.readouterr().err
    old = [encode_line({'format': 'mmadv/records 1', 'settings': SETTINGS}), *lines[1:]]  # without a number
    path.write_bytes(b''.join(old))
    assert read_records(path)[1] == [record(0), record(1), record(2)]


def test_remove_leaves_files_of_others(tmp_path):
    store = filled(tmp_path / 'store', [0])
    store.save_arrays('example', {'a': np.zeros(1)})
    for name in ('adversarial/4_255/city/0.png', 'adversarial/4_255/.' + 'a' * 32, '.example-0123abcd'):
        (tmp_path / 'store' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'store' / name).write_text('')
    store.remove()
    assert not (tmp_path / 'store').exists()
    (tmp_path / 'store/adversarial').mkdir(parents=True)
    for name in ('adversarial/notes.txt', 'picture.png'):
        (tmp_path / 'store' / name).write_text('mine')
    filled(tmp_path / 'store', [0]).remove()
    assert {path.name for path in (tmp_path / 'store').rglob('*')} == {'adversarial', 'notes.txt', 'picture.png'}
