"""Unfinished runs of commands that store results per image: protection from overwriting, and resuming."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import broadcast_object_list, is_main_process

from mmadv.checkpoints.loading import load_checkpoint_file, use_safe_loading
from mmadv.commands.command_line import command_text, load_config, require, user_sentence
from mmadv.errors import UserError
from mmadv.evaluation.result_store import ResultStore
from mmadv.printing import printable
from mmadv.report.output_folder import check_unlocked, check_writable, locked

# Config keys that have no effect in commands that evaluate a checkpoint -> what decides instead.
REPLACED = {
    'randomness': '--seed',
    'work_dir': '--out',
    'load_from': 'the checkpoint on the command line',
    'resume': '--resume',
    'launcher': '--launcher',
    'test_cfg': 'the command line',
}
# Inside the output folder: results per image during the run.
UNFINISHED = 'unfinished'


def check_unfinished(arguments: Namespace, out: Path) -> None:
    """Raises UserError if the folder has an unfinished run and the arguments give neither --resume nor --restart."""
    if arguments.resume and arguments.restart:
        raise UserError('--resume goes on with an unfinished run and --restart discards it; give one of them')
    if arguments.resume and not arguments.out:
        raise UserError('--resume needs --out, the folder of the run that is to go on')
    if not (arguments.resume or arguments.restart) and ResultStore(out / UNFINISHED, {}).has_results:
        raise UserError(
            f'output folder {out} holds the results of an unfinished run; go on with --resume, discard them with '
            '--restart, or give another --out'
        )


def load_run(arguments: Namespace, out: Path) -> Config:
    """Returns the config of a command, after a check of its output folder and its checkpoint.

    Raises:
        UserError: the folder may not be written, another run has the folder, the config does not load or lacks a part,
            or the checkpoint cannot be read.
    """
    check_writable(out)
    check_unlocked(out)
    check_unfinished(arguments, out)
    _check_replaced(arguments.cfg_options or {})
    config = load_config(arguments.config, arguments.cfg_options)
    require(config, arguments.config, ['model', 'test_dataloader'])
    use_safe_loading()
    if arguments.checkpoint is not None:
        load_checkpoint_file(arguments.checkpoint)
    return config


def _check_replaced(options: Mapping[str, Any]) -> None:
    """Raises UserError for a ``--cfg-options`` key that an argument of the command overrides."""
    for key in options:
        argument = REPLACED.get(key.partition('.')[0])
        if argument is not None:
            raise UserError(f'--cfg-options {key} has no effect: {argument} decides here; leave it out')


@contextmanager
def exclusive_run(arguments: Namespace, out: Path) -> Iterator[None]:
    """Locks the output folder against other runs inside the block; all processes of a run must call it.

    Raises:
        UserError: another run has the folder, or the folder has an unfinished run and the arguments do not say what to
            do with it.
    """
    with ExitStack() as stack:
        refusal: list[str | None] = [None]
        if is_main_process():
            try:
                stack.enter_context(locked(out))
                check_unfinished(arguments, out)
            except UserError as error:
                refusal = [str(error)]
        broadcast_object_list(refusal)
        if refusal[0]:
            raise UserError(refusal[0])
        yield


@contextmanager
def resume_hint(store: ResultStore, out: Path, name: str, argv: Sequence[str]) -> Iterator[None]:
    """Adds to any error that ends the run how many images are kept and how to resume.

    Args:
        store: result store of the run; it is closed at the end.
        out: output folder.
        name: name of the sub-command, such as 'test'.
        argv: arguments of the sub-command.

    Raises:
        KeyboardInterrupt: the user interrupted the run; the message holds the command that resumes it.
        UserError: the error that ended the run, with a note on how to resume.
    """
    try:
        yield
    except BaseException as error:
        store.close()
        done = len(store.records())
        note = f'{done} images are done and kept in {out}; go on with the same command and --resume'
        sentence = user_sentence(error)
        if isinstance(error, KeyboardInterrupt):
            words = without_resuming(argv)
            words += [] if any(word.startswith('--o') for word in words) else ['--out', str(out)]
            command = command_text(name, [*words, '--resume'])
            how = f'{done} images are done and kept; go on with\n{command}' if done else 'nothing was done yet'
            raise KeyboardInterrupt(how) from None
        if done and sentence is not None:
            raise UserError(f'{sentence} ({note})') from error
        if done:
            print(printable(note), file=sys.stderr)
        raise


def without_resuming(argv: Sequence[str]) -> list[str]:
    """Returns the command line without --resume and --restart, and without abbreviations that argparse accepts."""
    options = ('--resume', '--restart')
    return [word for word in argv if not (len(word) > 5 and any(option.startswith(word) for option in options))]
