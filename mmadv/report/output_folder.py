"""The output folder of a command: one run at a time writes there. A run deletes only files of earlier runs."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from mmadv.errors import UserError
from mmadv.locks import is_locked, release, temporary_folder, try_lock
from mmadv.printing import printable
from mmadv.report.run import FILE_NAME

# This file of the folder lists the files that the last run of each command wrote.
MANIFEST = 'manifest.json'
MANIFEST_SCHEMA = 'mmadv/manifest'
LOCK = '.mmadv-lock'
STAGE_PREFIX = '.mmadv-stage-'


def check_writable(folder: str | Path, option: str = '--out') -> None:
    """Raises UserError unless the output folder can be made or written; leaves nothing behind.

    Args:
        folder: the output folder; it need not exist.
        option: the option that names the folder.
    """
    folder = Path(folder).absolute()
    if os.path.lexists(folder) and not folder.is_dir():
        raise UserError(f'output folder {folder} is a file; give another {option}')
    ancestor = folder
    while not ancestor.exists():
        ancestor = ancestor.parent
    try:
        os.rmdir(tempfile.mkdtemp(prefix='.mmadv-', dir=ancestor))
    except OSError as error:
        raise UserError(
            f'output folder {folder} cannot be written: {error.strerror} ({ancestor}); give another {option}'
        ) from None


def check_unlocked(folder: str | Path) -> None:
    """Raises UserError while another run writes to a folder; leaves nothing behind."""
    lock = Path(folder) / LOCK
    if is_locked(lock):
        raise UserError(_in_use(Path(folder), lock))


@contextmanager
def locked(folder: str | Path, option: str = '--out') -> Iterator[None]:
    """Keeps other runs out of an output folder while the block lasts.

    The function makes the folder if it is missing, and deletes it again if it is empty at the end. The lock ends with
    the process, so a killed run does not leave the lock behind.

    Args:
        folder: the folder to lock.
        option: the option that names the folder.

    Raises:
        UserError: another run has the folder, or the folder cannot be written.
    """
    folder = Path(folder).absolute()
    lock = folder / LOCK
    made = _make(folder)
    try:
        descriptor = _take_lock(folder, lock, option)
        try:
            yield
        finally:
            release(lock, descriptor)
    finally:
        _delete_empty(made)


def _take_lock(folder: Path, lock: Path, option: str) -> int | None:
    """Returns the descriptor of the lock; if the file system has no locks, prints a note and returns None."""
    try:
        descriptor = try_lock(lock)
    except OSError as error:
        if not lock.exists():
            raise UserError(f'output folder {folder} cannot be written: {error.strerror}') from None
        print(f'note: {folder} cannot be locked ({error.strerror}); start one run there at a time', file=sys.stderr)
        return None
    if descriptor is None:
        raise UserError(_in_use(folder, lock, option))
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f'process {os.getpid()} on {socket.gethostname()}'.encode())
    return descriptor


@contextmanager
def staged(folder: str | Path, last: str = FILE_NAME) -> Iterator[Path]:
    """Gives a temporary folder, and moves its files into ``folder`` when the block ends without an error.

    Files that the manifest lists for an earlier run with the same ``last`` are replaced or deleted. All other files
    stay. If a new file needs the name of such a file, the old file is renamed. The old file called ``last`` is deleted
    first and the new one is moved last. So a folder with a results.json is complete.

    Raises:
        UserError: the folder cannot be written.
    """
    folder = Path(folder).absolute()
    made = _make(folder)
    try:
        with temporary_folder(folder, STAGE_PREFIX) as stage:
            yield stage
            _publish(stage, folder, last)
    except OSError as error:
        raise UserError(f'output folder {folder} cannot be written: {error.strerror or error}') from error
    finally:
        _delete_empty(made)


def manifest(folder: Path) -> dict[str, set[str]]:
    """Returns the files that earlier runs wrote into a folder, as paths relative to the folder.

    Returns:
        name of the file that a command writes last -> files of that command's run. So commands that share a folder
        do not delete each other's results.
    """
    if not (folder / MANIFEST).is_file():
        return {}
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict) or content.get('schema') != MANIFEST_SCHEMA:
        return {}
    runs = content.get('runs')
    if not isinstance(runs, dict):
        return {}
    return {
        last: {name for name in files if _is_below(name)} for last, files in runs.items() if isinstance(files, list)
    }


def _is_below(name: Any) -> bool:
    """Returns whether a value of a manifest names a file inside the folder."""
    if not isinstance(name, str) or not name or '\0' in name:
        return False
    path = PurePosixPath(name)
    return not path.is_absolute() and '..' not in path.parts and path.parts != ()


def _publish(stage: Path, folder: Path, last: str) -> None:
    """Moves the files of a stage into the folder."""
    new = {path.relative_to(stage).as_posix() for path in stage.rglob('*') if path.is_file()}
    empty = [path.relative_to(stage) for path in stage.rglob('*') if path.is_dir() and not any(path.iterdir())]
    runs = manifest(folder)
    old = runs.get(last, set())
    if last in old:
        (folder / last).unlink(missing_ok=True)
    ours = {MANIFEST}.union(*runs.values())
    for name in [*sorted(new), *((path / 'file').as_posix() for path in empty)]:
        _make_way(folder, name, ours)
    if not runs:
        _make_way(folder, MANIFEST, set())
    # While files move, the manifest lists all old and new files. So a killed run leaves no unknown file.
    _write_manifest(folder, {**runs, last: old | new})
    for name in sorted(new - {last}):
        _move(stage / name, folder / name)
    for name in sorted(old - new):
        _delete(folder, name)
    for path in empty:
        (folder / path).mkdir(parents=True, exist_ok=True)
    _write_manifest(folder, {**{other: names - new for other, names in runs.items()}, last: new})
    if last in new:
        _move(stage / last, folder / last)


def _write_manifest(folder: Path, runs: Mapping[str, set[str]]) -> None:
    files = {last: sorted(names) for last, names in sorted(runs.items())}
    text = json.dumps({'schema': MANIFEST_SCHEMA, 'schema_version': 1, 'runs': files}, indent=1)
    temporary = folder / f'.mmadv-{uuid.uuid4().hex}'
    try:
        temporary.write_text(text + '\n', encoding='utf-8')
        os.replace(temporary, folder / MANIFEST)
    finally:
        temporary.unlink(missing_ok=True)


def _make_way(folder: Path, name: str, ours: set[str]) -> None:
    """Renames each foreign file or folder that has the place of a new file, or of a folder above the new file."""
    for part in [*reversed(PurePosixPath(name).parents), PurePosixPath(name)]:
        path, final = folder / part, part == PurePosixPath(name)
        if not os.path.lexists(path) or (path.is_dir() and not final):
            continue
        if part.as_posix() in ours and not path.is_dir():
            if not final:
                path.unlink()
            continue
        aside = next(other for other in _other_names(path) if not os.path.lexists(other))
        os.rename(path, aside)
        print(printable(f'note: {path} is not from an earlier run; it is renamed to {aside.name}'), file=sys.stderr)


def _other_names(path: Path) -> Iterator[Path]:
    yield path.with_name(f'{path.name}.old')
    number = 2
    while True:
        yield path.with_name(f'{path.name}.old{number}')
        number += 1


def _move(source: Path, destination: Path) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.replace(source, destination)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        temporary = destination.with_name(f'.mmadv-{uuid.uuid4().hex}')
        try:
            shutil.copyfile(source, temporary)
            os.replace(temporary, destination)
        finally:
            temporary.unlink(missing_ok=True)


def _delete(folder: Path, name: str) -> None:
    """Deletes a file of an earlier run, and then the folders that are empty."""
    path = folder / name
    if not os.path.lexists(path) or (path.is_dir() and not path.is_symlink()):
        return
    path.unlink()
    for parent in PurePosixPath(name).parents[:-1]:
        if not (folder / parent).is_symlink():
            _delete_empty([folder / parent])


def _make(folder: Path) -> list[Path]:
    """Makes a folder and its missing parents; returns the new folders, the deepest first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _delete_empty(missing)
        raise UserError(f'output folder {folder} cannot be written: {error.strerror}') from None
    return missing


def _delete_empty(folders: Sequence[Path]) -> None:
    """Deletes empty folders in the given order, the deepest first; stops at the first one that is not empty."""
    for folder in folders:
        try:
            folder.rmdir()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return


def _in_use(folder: Path, lock: Path, option: str = '--out') -> str:
    try:
        with open(lock, errors='replace') as stream:
            owner = re.fullmatch(r'process \d+ on [\w.-]+', stream.read(300))
    except OSError:
        owner = None
    who = f'another run ({owner[0]})' if owner else 'another run'
    return f'output folder {folder} is in use by {who}; wait for its end, stop it, or give another {option}'
