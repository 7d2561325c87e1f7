"""Reading and writing of result folders; docs/results.md describes the schema."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmadv.errors import UserError
from mmadv.files import check_regular
from mmadv.report.result_check import check_results

SCHEMA = 'mmadv/results'
SCHEMA_VERSION = 1
FILE_NAME = 'results.json'


def load_results(folder: str | Path) -> dict[str, Any]:
    """Returns the content of the ``results.json`` of a result folder; ``RunResults.load`` returns it as a type.

    Raises:
        UserError: there is none, it is cut short, or it is of another schema version.
    """
    path = Path(folder) / FILE_NAME
    check_regular(path, 'results')
    try:
        results = json.loads(path.read_text(encoding='utf-8'), parse_constant=_refuse_constant)
    except OSError as error:
        raise UserError(
            f'results {path} cannot be read: {error.strerror}; give a folder that mmadv test wrote'
        ) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f'results {path} is not JSON ({error}); run mmadv test again') from None
    if not isinstance(results, dict) or results.get('schema') != SCHEMA:
        raise UserError(f"results {path} is not of the schema '{SCHEMA}'; give a folder that mmadv test wrote")
    if results.get('schema_version') != SCHEMA_VERSION:
        raise UserError(
            f'results {path} has schema version {results.get("schema_version")}, this mmadv reads {SCHEMA_VERSION}; '
            'use the mmadv that wrote it, or run mmadv test again'
        )
    check_results(results, f'results {path}')
    return results


def _refuse_constant(name: str) -> Any:
    raise ValueError(f'{name} is no number')


def check_writable(folder: str | Path) -> None:
    """Raises UserError unless a result folder can be made there; leaves nothing behind."""
    folder = Path(folder).absolute()
    if folder.exists() and not folder.is_dir():
        raise UserError(f'output folder {folder} is a file; give another --out')
    ancestor = folder
    while not ancestor.exists():
        ancestor = ancestor.parent
    try:
        os.rmdir(tempfile.mkdtemp(prefix='.mmadv-', dir=ancestor))
    except OSError as error:
        raise UserError(f'output folder {folder} cannot be written: {error.strerror} ({ancestor})') from None


@contextmanager
def staged(folder: str | Path, last: str = FILE_NAME) -> Iterator[Path]:
    """Gives a temporary folder whose content replaces that of ``folder`` when the block ends without an error.

    A new ``folder`` appears whole, by one rename. In an existing one the old file called ``last`` goes first and the
    new one comes last, so that a folder with a results.json is complete; files of other names stay.
    """
    folder = Path(folder).absolute()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f'.{folder.name}-', dir=folder.parent))
    except OSError as error:
        raise UserError(f'output folder {folder} cannot be written: {error.strerror}') from None
    try:
        yield stage
        stage.chmod(0o777 & ~_umask())
        if not folder.exists():
            stage.rename(folder)
            return
        (folder / last).unlink(missing_ok=True)
        for item in sorted(stage.iterdir(), key=lambda item: item.name == last):
            target = folder / item.name
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            item.replace(target)
    except OSError as error:
        raise UserError(f'output folder {folder} cannot be written: {error.strerror or error}') from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def discard_stale(folder: Path, stage: Path, names: Iterable[str]) -> None:
    """Deletes files and folders of these names from a folder that ``stage``, where they are not, is about to renew."""
    for name in names:
        path = folder / name
        if (stage / name).exists() or not (path.exists() or path.is_symlink()):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
