"""A CheckpointHook that loses no checkpoint if the process is killed while a checkpoint is written."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from mmadv.checkpoints.resuming import newest_checkpoint
from mmadv.errors import UserError, nearest
from mmadv.fields import checked

# Suffix of a checkpoint that is being written.
PARTIAL = '.partial'
# The message hub's name of the older files that a checkpoint replaces; the checkpoint itself holds this entry.
OUTDATED = 'outdated_checkpoints'
# The message hub's name of the iteration that was validated last. A name that began with a mode would be logged.
VALIDATED = 'iteration_of_last_validation'


@HOOKS.register_module()
@checked
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook, which writes a new checkpoint completely before it deletes an older one.

    The hook writes to a temporary file, syncs the file, renames it, and writes ``last_checkpoint``. Then it deletes the
    files that ``max_keep_ckpts`` and ``save_best`` no longer keep. If the run is killed in between, the resumed run
    deletes these files.

    If a run resumes without a given checkpoint, the hook takes the newest complete file of this work folder alone, and
    logs its name. In a copied or moved folder, the best checkpoint is the file in the new folder. If a validation was
    due when the run was killed, the resumed run does it first. After every validation the hook writes the checkpoint
    of that iteration again.

    CheckpointHook itself handles folders that are not local, and runners that save folders.

    Args:
        **settings: settings of CheckpointHook.
    """

    def __init__(self, **settings: Any) -> None:
        # CheckpointHook accepts unknown keys, and ignores them.
        known = [key for key in inspect.signature(CheckpointHook).parameters if key != 'kwargs']
        for key in settings:
            if key not in known:
                raise UserError(f"CheckpointHook has no setting '{key}'{nearest(key, known)}")
        super().__init__(**settings)

    # False until training begins: a validation alone has no folder to write to.
    is_atomic = False
    _awaiting_validation: int | None = None
    # CheckpointHook sets these attributes.
    file_backend: Any
    best_ckpt_path: str | None

    def before_run(self, runner: Runner) -> None:
        """Chooses the checkpoint that a resumed run continues from."""
        if runner._resume and runner._load_from is None:
            runner._load_from, why = newest_checkpoint(
                runner.work_dir, checkpoint_folder(runner.work_dir, self.out_dir)
            )
            runner.logger.info(why)

    def before_train(self, runner: Runner) -> None:
        """Prepares the folder, and finishes the work that a killed run left there."""
        super().before_train(runner)
        self.is_atomic = isinstance(self.file_backend, LocalBackend) and isinstance(runner, Runner)
        if not self.is_atomic:
            return
        self.file_backend = _RemovesLater(self.file_backend)
        self._move_best(runner)
        if is_main_process():
            self._clean(runner)
        self._validate_if_due(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Saves the best weights, and records that this validation is done."""
        if not self.is_atomic:
            super().after_val_epoch(runner, metrics)
            return
        runner.message_hub.update_info(VALIDATED, runner.iter)
        super().after_val_epoch(runner, metrics)
        step = runner.epoch if self.by_epoch else runner.iter
        if self._awaiting_validation == step:
            self._save_checkpoint_with_step(runner, step, {'epoch': runner.epoch, 'iter': runner.iter})

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        if not self.is_atomic:
            super()._save_checkpoint_with_step(runner, step, meta)
            return
        validated = runner.message_hub.get_info(VALIDATED) == meta['iter']
        super()._save_checkpoint_with_step(_SavesWhole(runner, self.file_backend), step, meta)
        self._awaiting_validation = None if validated else step
        self.file_backend.remove_now()

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        if not self.is_atomic:
            super()._save_best_checkpoint(runner, metrics)
            return
        super()._save_best_checkpoint(_SavesWhole(runner, self.file_backend), metrics)
        self.file_backend.remove_now()

    def _move_best(self, runner: Runner) -> None:
        """Sets the best checkpoints to the files of this folder; in a copied folder the hub names the old place."""
        if self.save_best is None:
            return
        if len(self.key_indicators) == 1:
            if self.best_ckpt_path:
                self.best_ckpt_path = os.path.join(self.out_dir, os.path.basename(self.best_ckpt_path))
                runner.message_hub.update_info('best_ckpt', self.best_ckpt_path)
            return
        for key, path in self.best_ckpt_path_dict.items():
            if path:
                self.best_ckpt_path_dict[key] = os.path.join(self.out_dir, os.path.basename(path))
                runner.message_hub.update_info(f'best_ckpt_{key}', self.best_ckpt_path_dict[key])

    def _validate_if_due(self, runner: Runner) -> None:
        """Validates if the resumed checkpoint was written before a validation that was due and never ran."""
        done = runner.message_hub.runtime_info.get(VALIDATED)
        if done is None:
            runner.message_hub.update_info(VALIDATED, 0)
            return
        loop = runner.train_loop
        now, last = (runner.epoch, loop.max_epochs) if self.by_epoch else (runner.iter, loop.max_iters)
        if runner.val_loop is None or done == runner.iter or now < loop.val_begin:
            return
        loop._decide_current_val_interval()
        if now % loop.val_interval == 0 or now == last:
            runner.logger.info(f'validating at iteration {runner.iter}: the run was interrupted before this validation')
            runner.val_loop.run()

    def _clean(self, runner: Runner) -> None:
        """Deletes the leftovers of a killed run: half-written files, and files that the resumed checkpoint replaced."""
        folder = Path(self.out_dir)
        for path in folder.glob(f'*.pth{PARTIAL}'):
            path.unlink(missing_ok=True)
        resumed = runner._load_from if runner._resume else None
        if resumed and Path(resumed).resolve().parent == folder.resolve():
            for name in runner.message_hub.runtime_info.get(OUTDATED) or []:
                if name != Path(resumed).name:
                    (folder / Path(name).name).unlink(missing_ok=True)


def checkpoint_folder(work_dir: str | Path, out_dir: str | Path | None) -> str:
    """Returns the folder that CheckpointHook writes to."""
    if out_dir is None or out_dir == work_dir:
        return str(work_dir)
    return os.path.join(out_dir, os.path.basename(str(work_dir).rstrip(os.sep)))


class _SavesWhole:
    """A runner whose checkpoints get their final name only when they are complete.

    Args:
        runner: the runner that saves.
        backend: the file backend that removes older files later.
    """

    def __init__(self, runner: Any, backend: _RemovesLater) -> None:
        self._runner: Any = runner._runner if isinstance(runner, _SavesWhole) else runner
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    def save_checkpoint(self, out_dir: str, filename: str, *arguments: Any, **options: Any) -> None:
        """Saves a checkpoint as the runner does, under a temporary name first.

        Raises:
            UserError: the disk is full or fails; older checkpoints stay unchanged.
        """
        path = os.path.join(out_dir, filename)
        self._backend.spare(path)
        self._runner.message_hub.update_info(OUTDATED, [os.path.basename(old) for old in self._backend.outdated])
        try:
            self._runner.save_checkpoint(out_dir, filename + PARTIAL, *arguments, **options)
            if is_main_process():
                _sync(path + PARTIAL)
                os.replace(path + PARTIAL, path)
                _sync(out_dir)
        except OSError as error:
            Path(path + PARTIAL).unlink(missing_ok=True)
            raise UserError(
                f'the checkpoint {path} cannot be written ({error.strerror or error}); older ones are as they were: '
                'make room, then resume the training'
            ) from error


class _RemovesLater:
    """A file backend that collects files to remove, and removes them on ``remove_now``."""

    def __init__(self, backend: LocalBackend) -> None:
        self._backend = backend
        self.outdated: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name == '_backend':  # while unpickling
            raise AttributeError(name)
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        """Notes a file for removal."""
        self.outdated.append(str(path))

    def spare(self, path: str) -> None:
        """Takes a file off the list, because the file is written again."""
        self.outdated = [other for other in self.outdated if os.path.abspath(other) != os.path.abspath(path)]

    def remove_now(self) -> None:
        """Removes the noted files."""
        outdated, self.outdated = self.outdated, []
        _unlink(outdated)


def _unlink(paths: Iterable[str]) -> None:
    for path in paths:
        Path(path).unlink(missing_ok=True)


def _sync(path: str) -> None:
    """Syncs a file, or the entries of a folder, to disk, so that they survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
