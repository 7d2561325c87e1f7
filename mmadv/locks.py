"""Locks that end with their process, however it ends, and temporary folders that a later run deletes if left over."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK_NAME = '.lock'
# Some process is making or deleting a folder that has no lock file. After this time, that process was killed.
UNLOCKED_SECONDS = 60.0
_held: set[int] = set()


def try_lock(path: str | Path) -> int | None:
    """Returns a descriptor that holds the lock on a file, None if another process holds it; ``release`` ends the lock.

    The file is made if it is missing. The lock ends with the process. Processes forked from it do not hold the lock.

    Raises:
        OSError: the file cannot be opened, or its file system has no locks.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:
            os.close(descriptor)
            raise
        if _is_file(path, descriptor):
            _held.add(descriptor)
            return descriptor
        os.close(descriptor)  # the last owner deleted the file meanwhile


def is_locked(path: str | Path) -> bool:
    """Returns whether a process holds the lock on a file; does not make the file."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def release(path: str | Path, descriptor: int | None) -> None:
    """Deletes the file of a lock and ends the lock; the descriptor None means a file without a lock."""
    Path(path).unlink(missing_ok=True)
    if descriptor is not None and descriptor in _held:
        _held.discard(descriptor)
        os.close(descriptor)


@contextmanager
def temporary_folder(parent: str | Path, prefix: str) -> Iterator[Path]:
    """Yields a new folder and deletes it at the end.

    First, folders of this prefix that killed processes left in ``parent`` are deleted.
    """
    for path in Path(parent).glob(f'{prefix}*'):
        _delete_if_left(path)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        descriptor = _lock_new(folder / LOCK_NAME)
        inner = folder / 'files'
        inner.mkdir()
        try:
            yield inner
        finally:
            release(folder / LOCK_NAME, descriptor)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _lock_new(path: Path) -> int | None:
    """Makes the lock file of a new folder; the file is locked before it gets its name.

    If a file of this name is unlocked, its process has therefore ended.
    """
    unnamed = path.with_name(f'{path.name}.new')
    try:
        descriptor = try_lock(unnamed)
    except OSError:  # the file system has no locks: no process can lock the file, so none deletes the folder
        descriptor = None
        unnamed.touch()
    unnamed.rename(path)
    return descriptor


def _delete_if_left(folder: Path) -> None:
    """Deletes a temporary folder whose process has ended."""
    lock = folder / LOCK_NAME
    try:
        if not lock.exists():
            if time.time() - folder.stat().st_mtime < UNLOCKED_SECONDS:
                return
            shutil.rmtree(folder, ignore_errors=True)
            return
        descriptor = try_lock(lock)
    except OSError:  # the folder is another user's, or is deleted by now
        return
    if descriptor is not None:
        shutil.rmtree(folder, ignore_errors=True)
        release(lock, descriptor)


def _is_file(path: str | Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _forget() -> None:
    """Closes the locks in a forked process, which would otherwise hold them after its parent has ended."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forget)
