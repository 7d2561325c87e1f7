"""Finds the checkpoint in a work folder from which a training resumes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmadv.checkpoints.loading import load_checkpoint_file
from mmadv.errors import UserError

# mmengine writes the path of the latest checkpoint into this file of the work folder.
POINTER = 'last_checkpoint'


def newest_checkpoint(work_dir: str | Path, folder: str | Path | None = None) -> tuple[str | None, str]:
    """Returns the newest complete checkpoint, None if there is nothing to resume from, and a sentence that says why.

    The time and the iteration stored in the files decide, since a copy changes the times of files. Only files of this
    folder count: ``last_checkpoint`` holds an absolute path, which still names the old place in a copied folder.

    Args:
        work_dir: the work folder of the training, with ``last_checkpoint``.
        folder: the folder of the checkpoints, by default the work folder.

    Raises:
        UserError: there are signs of a checkpoint, but the folder has no complete one.
    """
    folder = Path(work_dir if folder is None else folder)
    named = _named(Path(work_dir) / POINTER)
    dated, damaged = _training_checkpoints(folder)
    for time, iteration, path in sorted(dated, reverse=True):
        try:
            load_checkpoint_file(path)
        except UserError:
            damaged.append(path)
            continue
        why = f'{iteration} iterations, saved at {time}: the newest checkpoint in {folder} that reads whole'
        return str(path), f'resuming from {path} ({"; ".join([why, *_remarks(path, named, damaged)])})'
    if damaged:
        listed = ', '.join(sorted(path.name for path in damaged))
        raise UserError(
            f'no checkpoint in {folder} reads whole ({listed}); name another checkpoint, or train from the start '
            'without resuming'
        )
    if named is None:
        return None, f'there is nothing to resume from in {work_dir}; training begins at iteration 1'
    if not named:
        raise UserError(
            f'{Path(work_dir) / POINTER} is empty and {folder} holds no checkpoint; name a checkpoint, or train '
            'anew without resuming'
        )
    raise UserError(
        f'{Path(work_dir) / POINTER} names {named}, and {folder} holds no checkpoint; was the folder copied or moved '
        'without it? Copy the checkpoint too, name it, or train from the start without resuming'
    )


def _named(pointer: Path) -> str | None:
    """Returns the path in a work folder's ``last_checkpoint``, None if there is no such file."""
    try:
        return pointer.read_text(errors='replace').strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f'{pointer} cannot be read ({error.strerror}); repair or remove it') from error


def _training_checkpoints(folder: Path) -> tuple[list[tuple[str, int, Path]], list[Path]]:
    """Returns (time, iterations, path) of a folder's checkpoints that training can resume from, and the damaged files.

    Files with the best weights and published files do not count: they hold no state of the training.
    """
    dated, damaged = [], []
    for path in sorted(folder.glob('*.pth')) if folder.is_dir() else []:
        if not path.is_file():
            continue
        try:
            checkpoint = load_checkpoint_file(path, mmap=True)
        except UserError:
            damaged.append(path)
            continue
        meta: Any = checkpoint.get('meta')
        if _is_resumable(path, checkpoint, meta):
            dated.append((str(meta.get('time', '')), meta['iter'], path))
    return dated, damaged


def _is_resumable(path: Path, checkpoint: Mapping[str, Any], meta: Any) -> bool:
    if path.name.startswith('best_') or not isinstance(meta, Mapping):
        return False
    return isinstance(meta.get('iter'), int) and {'state_dict', 'message_hub'} <= checkpoint.keys()


def _remarks(path: Path, named: str | None, damaged: list[Path]) -> list[str]:
    remarks = [f'{other.name} does not' for other in sorted(damaged)]
    if not named:
        remarks.append(f'there is no {POINTER}' if named is None else f'{POINTER} is empty')
    elif os.path.abspath(named) != os.path.abspath(path):
        remarks.append(f'{POINTER} names {named}')
    return remarks
