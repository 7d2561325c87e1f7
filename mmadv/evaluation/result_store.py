"""Results per image, written to disk as they are computed. An interrupted run loses only the images in progress.

A store is a folder. Each start or resumption of a run adds one file per process. No process therefore appends to a
file that another process left incomplete. Each line of a file has a checksum, a space, a JSON value and a newline. The
first line holds the settings of the results. Every further line holds the result of an image. A line that is incomplete
or damaged is never read as a result.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import sys
import time
import uuid
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmadv.errors import UserError
from mmadv.evaluation.record_check import check_header, check_index
from mmadv.files import check_regular
from mmadv.printing import printable

FORMAT = 'mmadv/records 1'
SUFFIX = '.jsonl'
# Files of a store, and files that a measurement keeps there. A file that is being written has a name with a dot first.
OWN_FILES = re.compile(r'records-.*\.jsonl|[^/]*\.npz|\.[^/]*-[0-9a-f]{8}|adversarial/(.*\.png|(.*/)?\.[0-9a-f]{32})')
SYNC_SECONDS = 5.0
SHOWN_CHARACTERS = 60


def encode_line(value: Any) -> bytes:
    r"""Returns a JSON value as a line: 16 hexadecimal digits of BLAKE2b, a space, the JSON text, a newline.

    >>> encode_line({'index': 3})
    b'6f70febb8a8dffe4 {"index":3}\n'
    """
    text = json.dumps(value, separators=(',', ':'), allow_nan=False).encode()
    return _checksum(text) + b' ' + text + b'\n'


def decode_lines(data: bytes) -> tuple[list[Any], int]:
    """Returns the values of all whole lines, in order, and the number of damaged ones.

    Every value is a JSON object. A line with another value, or with a NaN or infinite number, counts as damaged.
    Text after the last newline is a line that the process was writing when it ended; it does not count as damaged.
    """
    values, damaged = [], 0
    for line in data.split(b'\n')[:-1]:
        checksum, _, text = line.partition(b' ')
        try:
            value = json.loads(text, parse_constant=_refuse_constant) if _checksum(text) == checksum else None
        except (ValueError, RecursionError):  # the checksum is right, the JSON is not: nested too deep, NaN
            value = None
        if isinstance(value, dict):
            values.append(value)
        else:
            damaged += 1
    return values, damaged


def _refuse_constant(name: str) -> Any:
    raise ValueError(f'{name} is not a number')


def first_difference(then: Any, now: Any, path: str = '') -> str | None:
    """Returns where two JSON values first differ and how, None if they are equal.

    >>> first_difference({'seed': 0, 'attack': {'steps': 5}}, {'seed': 0, 'attack': {'steps': 9}})
    'attack.steps (5 then, 9 now)'
    """
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for key in [*then, *(key for key in now if key not in then)]:
            inner = f'{path}.{key}' if path else str(key)
            difference = first_difference(then.get(key), now.get(key), inner)
            if difference:
                return difference
        return None
    if isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        pairs = enumerate(zip(then, now, strict=True))
        return next(filter(None, (first_difference(*pair, f'{path}.{i}') for i, pair in pairs)), None)
    return None if then == now else f'{path} ({_short(then)} then, {_short(now)} now)'


class ResultStore:
    """Results per image of one run, in a folder that is made with the first result.

    Args:
        folder: the store's folder.
        settings: everything that influences the results, as JSON-able values.
        finished: file with the results of an earlier complete run; the store reads these too.
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, Any], finished: str | Path | None = None) -> None:
        self.folder = Path(folder)
        self.finished = Path(finished) if finished else None
        self.settings = json.loads(json.dumps(settings, default=repr))
        self.damaged = 0
        self._told: set[Path] = set()
        self._descriptor: int | None = None
        self._synced = 0.0

    @property
    def has_results(self) -> bool:
        """Returns whether an unfinished run has left results here."""
        return any(len(decode_lines(_content(path))[0]) > 1 for path in self._files())

    def read(self) -> dict[int, dict[str, Any]]:
        """Returns the stored results by the image's index; raises the errors of ``records``."""
        return {record['index']: record for record in self.records()}

    def records(self) -> list[dict[str, Any]]:
        """Returns the stored results, one of each image, and sets ``damaged``, the number of unreadable lines.

        The name identifies an image, as its index changes if other images are removed from the data. A note on stderr
        names each file with damaged lines.

        Raises:
            UserError: results were made with other settings. The message names the first setting that differs.
        """
        self.damaged = 0
        records: dict[Any, dict[str, Any]] = {}
        for path in self._files():
            records.update(self._read(path))
        if self.finished is not None and self.finished.is_file() and not (records and self._differs(self.finished)):
            records.update(self._read(self.finished))
        return sorted(records.values(), key=lambda record: record['index'])

    def append(self, record: Mapping[str, Any]) -> None:
        """Writes the result of an image; after the call, the result is safe even if the process is killed.

        Raises:
            UserError: the file cannot be written, for example on a full disk.
        """
        line = encode_line(record)
        try:
            if self._descriptor is None:
                self._descriptor = self._create()
            self._write(line)
            if time.monotonic() - self._synced > SYNC_SECONDS:
                self._sync()
        except OSError as error:
            self._abandon()
            raise self._unwritable(error) from error

    def save_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Writes named arrays, all of them or none.

        Raises:
            UserError: the file cannot be written.
        """
        temporary = self.folder / f'.{name}-{uuid.uuid4().hex[:8]}'
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(temporary, 'wb') as stream:
                # Every keyword but allow_pickle is an array, and no array has that name.
                np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
            os.replace(temporary, self.folder / f'{name}.npz')
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise self._unwritable(error) from error

    def load_arrays(self, name: str) -> dict[str, np.ndarray] | None:
        """Returns the arrays of that name, or None if they are missing or, with a note on stderr, unreadable."""
        path = self.folder / f'{name}.npz'
        check_regular(path, 'the stored arrays')
        try:
            with np.load(path, allow_pickle=False) as stored:
                return {key: stored[key] for key in stored.files}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError, zlib.error) as error:
            self._warn(path, f'cannot be read ({type(error).__name__}: {error})')
            return None

    def close(self) -> None:
        """Flushes the results to disk, so that they survive a power failure too, and closes the file."""
        if self._descriptor is not None:
            self._sync()
            self._abandon()

    def remove(self) -> None:
        """Deletes the files that runs keep in the folder, and the folder unless it has other files."""
        self._abandon()
        if not self.folder.is_dir():
            return
        for path in sorted(self.folder.rglob('*'), reverse=True):  # the content of a folder comes before the folder
            if path.is_dir() and not path.is_symlink():
                _remove_if_empty(path)
            elif OWN_FILES.fullmatch(path.relative_to(self.folder).as_posix()):
                path.unlink(missing_ok=True)
        _remove_if_empty(self.folder)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(f'records-*{SUFFIX}')) if self.folder.is_dir() else []

    def _read(self, path: Path) -> dict[Any, dict[str, Any]]:
        values, damaged = decode_lines(_content(path))
        if not values or values[0].get('format') != FORMAT:
            # Without the settings, results cannot be compared with this run's.
            damaged += len(values)
            values = []
        damaged += _missing_records(values)
        self.damaged += damaged
        if damaged:
            self._warn(path, f'holds {damaged} damaged line{"s" if damaged > 1 else ""}')
        if not values:
            return {}
        check_header(values[0], str(path))
        for record in values[1:]:
            check_index(record, str(path))
        difference = first_difference(values[0]['settings'], self.settings)
        if difference is not None and len(values) > 1:
            raise UserError(
                f'{path.parent} holds results of another run, which differs in {difference}; use the settings of '
                'that run, or choose another output folder'
            )
        return {str(record.get('image', record['index'])): record for record in values[1:]}

    def _warn(self, path: Path, what: str) -> None:
        """Prints once, and from one process of a machine, that a file has lost results."""
        if path not in self._told and os.environ.get('LOCAL_RANK', '0') == '0':
            print(printable(f'{path} {what}; the lost results are computed again'), file=sys.stderr)
        self._told.add(path)

    def _differs(self, path: Path) -> bool:
        values, _ = decode_lines(_content(path))
        header = values[0] if values else {}
        return first_difference(header.get('settings'), self.settings) is not None

    def _create(self) -> int:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f'records-{time.time_ns():020d}-{uuid.uuid4().hex[:8]}{SUFFIX}'
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        self._descriptor = descriptor
        self._synced = time.monotonic()
        self._write(header_line(self.settings))
        return descriptor

    def _write(self, data: bytes) -> None:
        assert self._descriptor is not None
        while data:
            data = data[os.write(self._descriptor, data) :]

    def _sync(self) -> None:
        assert self._descriptor is not None
        os.fsync(self._descriptor)
        self._synced = time.monotonic()

    def _abandon(self) -> None:
        """Closes the file; later results go to a new file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f'results cannot be written to {self.folder}: {error.strerror or error}; make room there')


def header_line(settings: Mapping[str, Any]) -> bytes:
    """Returns the first line of a file of results."""
    return encode_line({'format': FORMAT, 'settings': settings})


def write_records(path: Path, settings: Mapping[str, Any], records: Iterable[Mapping[str, Any]]) -> None:
    """Writes the results of a complete run into one file, in the format of the store, with their number."""
    records = list(records)
    with open(path, 'wb') as stream:
        stream.write(encode_line({'format': FORMAT, 'settings': settings, 'records': len(records)}))
        for record in records:
            stream.write(encode_line(record))


def read_records(path: str | Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns the settings and the results per image of a complete run, in the order of the images.

    Raises:
        UserError: the file cannot be read, is not a file of results, or is damaged.
    """
    data = _content(Path(path))
    values, damaged = decode_lines(data)
    if damaged or not data.endswith(b'\n') or not values or values[0].get('format') != FORMAT:
        raise UserError(f'results per image {path} are damaged; repair them by resuming mmadv test')
    check_header(values[0], str(path))
    for record in values[1:]:
        check_index(record, str(path))
    missing = _missing_records(values)
    if missing:
        raise UserError(
            f'results per image {path} are cut short: {missing} of {values[0]["records"]} images are missing; make '
            'them by resuming mmadv test'
        )
    return values[0]['settings'], values[1:]


def _content(path: Path) -> bytes:
    check_regular(path, 'results per image')
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f'results per image {path} cannot be read: {error.strerror}; run mmadv test again') from None


def _missing_records(values: Sequence[Any]) -> int:
    """Returns the number of results missing from a complete run's file, 0 if the file does not state its number."""
    header = values[0] if values and isinstance(values[0], dict) else {}
    number = header.get('records')
    return max(number - (len(values) - 1), 0) if isinstance(number, int) else 0


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
            raise


def _checksum(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=8).hexdigest().encode()


def _short(value: Any) -> str:
    text = 'nothing' if value is None else json.dumps(value)
    return text if len(text) <= SHOWN_CHARACTERS else f'{text[:SHOWN_CHARACTERS]}...'
