"""Temporary folders of several processes in one place."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from forks import start, status_of, statuses_of

from mmadv import locks
from mmadv.locks import LOCK_NAME, temporary_folder, try_lock

PREFIX = 'mmadv-test-'


def test_another_process_deletes_no_folder_in_the_making(tmp_path, monkeypatch):
    """The other process looks just before the new lock file is locked, which is where the two can cross."""
    lock_file = fcntl.flock

    def cross(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(locks.fcntl, 'flock', lock_file)
        for folder in tmp_path.glob(f'{PREFIX}*'):
            locks._delete_if_left(folder)
        lock_file(descriptor, operation)

    monkeypatch.setattr(locks.fcntl, 'flock', cross)
    with temporary_folder(tmp_path, PREFIX) as folder:
        assert folder.is_dir()
        with temporary_folder(tmp_path, PREFIX) as other:
            assert folder.is_dir()
            assert other.is_dir()
    assert not list(tmp_path.iterdir())


def test_processes_that_make_and_delete_at_once_keep_their_own_folders(tmp_path):
    """Each of four processes writes into 100 folders and reads back what it wrote."""

    def work():
        for number in range(100):
            with temporary_folder(tmp_path, PREFIX) as folder:
                (folder / 'text').write_text(str(number))
                assert (folder / 'text').read_text() == str(number)

    assert statuses_of([start(work) for _ in range(4)]) == [0] * 4
    assert not list(tmp_path.iterdir())


def test_the_folder_of_a_killed_process_is_deleted_by_the_next(tmp_path):
    def work():
        with temporary_folder(tmp_path, PREFIX) as folder:
            (folder / 'text').write_text('left')
            os._exit(0)

    assert status_of(start(work)) == 0
    (left,) = tmp_path.iterdir()
    assert (left / LOCK_NAME).exists()
    with temporary_folder(tmp_path, PREFIX) as folder:
        assert list(tmp_path.iterdir()) == [folder.parent]


def test_a_file_system_without_locks_keeps_the_folder(tmp_path, monkeypatch):
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(95, 'Operation not supported')

    monkeypatch.setattr(locks.fcntl, 'flock', refuse)
    with temporary_folder(tmp_path, PREFIX) as folder:
        with temporary_folder(tmp_path, PREFIX):
            assert folder.is_dir()
        assert (folder.parent / LOCK_NAME).exists()


def test_a_lock_is_held_once(tmp_path: Path):
    descriptor = try_lock(tmp_path / LOCK_NAME)
    assert try_lock(tmp_path / LOCK_NAME) is None
    locks.release(tmp_path / LOCK_NAME, descriptor)
    assert not (tmp_path / LOCK_NAME).exists()
