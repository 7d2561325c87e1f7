"""Code that all commands share: arguments, configs, and errors in one sentence."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
from mmengine.config import Config, DictAction
from mmseg.utils import register_all_modules

from mmadv.commands.argument_types import not_negative, text
from mmadv.commands.config_keys import check_config, check_kinds, check_options
from mmadv.config_paths import cfg
from mmadv.engine.attacked_batches import without_idle_workers
from mmadv.engine.data import first_line
from mmadv.engine.memory import is_out_of_memory
from mmadv.errors import UserError, nearest
from mmadv.models.requirements import import_sentence
from mmadv.printing import escaped_messages, printable, quoted

# Launcher -> the environment variables that mmengine reads with it.
LAUNCHERS = {
    'pytorch': ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NODELIST'),
    'mpi': ('OMPI_COMM_WORLD_LOCAL_RANK', 'OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE'),
}
# Launcher -> the environment variable that holds the rank of this process.
RANKS = {'pytorch': 'RANK', 'slurm': 'SLURM_PROCID', 'mpi': 'OMPI_COMM_WORLD_RANK'}
STARTERS = {'pytorch': 'torchrun', 'slurm': 'srun', 'mpi': 'mpirun'}
TRACEBACK_VARIABLE = 'MMADV_TRACEBACK'


class Parser(argparse.ArgumentParser):
    """An argument parser that raises UserError for mistakes and ends its help with an example.

    Args:
        prog: the command, such as 'mmadv test'.
        example: a whole command line.
        **options: options of ``argparse.ArgumentParser``.
    """

    def __init__(self, *, prog: str | None = None, example: str | None = None, **options: Any) -> None:
        epilog = f'example:\n  {example}' if example else None
        options.setdefault('formatter_class', argparse.RawDescriptionHelpFormatter)
        super().__init__(prog=prog, epilog=epilog, **options)

        self.given: set[str] = set()
        for name in (None, 'store'):
            self.register('action', name, StoreOnce)

    def error(self, message: str) -> NoReturn:
        # argparse begins with 'argument --limit: '. The sentence here begins with the name alone.
        sentence = re.sub(r"^argument (\S+): (?=must |'|takes |sets )", r'\1 ', message)
        raise UserError(f'{sentence}; see --help')

    def add_argument(self, *names: str, **settings: Any) -> argparse.Action:
        """Adds an argument as argparse does; an argument without a type is a name or a path and must not be empty."""
        if settings.get('action') in (None, 'append') and settings.get('nargs') != 0:
            settings.setdefault('type', text)
        return super().add_argument(*names, **settings)

    # argparse overloads this method by the type of the namespace. No command passes a namespace.
    def parse_args(self, argv: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        argv = sys.argv[1:] if argv is None else list(argv)
        option = ''
        for word in argv:
            option = word if word.startswith('--') else option
            if option and re.match(r'-(\.?\d|inf|nan)', word, re.IGNORECASE):
                raise UserError(f'{option} {quoted(word)} is negative; numbers of the command line must not be')
        arguments, unknown = self.parse_known_args(argv, namespace)
        if unknown:
            known = [name for name in self._option_string_actions if name.startswith('--')]
            hint = nearest(unknown[0].partition('=')[0], known) if unknown[0].startswith('--') else ''
            self.error(f'unrecognized arguments: {" ".join(unknown)}{hint if "did you mean" in hint else ""}')
        return arguments

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self.given = set()
        return super().parse_known_args(args, namespace)

    def add_launcher(self) -> None:
        """Adds --launcher, for commands that can run in several processes."""
        self.add_argument(
            '--launcher',
            choices=['none', 'pytorch', 'slurm', 'mpi'],
            default='none',
            help='launcher of a distributed run',
        )
        self.add_argument('--local_rank', '--local-rank', type=not_negative, default=0, help=argparse.SUPPRESS)

    def add_cfg_options(self) -> None:
        """Adds --cfg-options."""
        self.add_argument(
            '--cfg-options',
            nargs='+',
            action=ConfigOptions,
            metavar='KEY=VALUE',
            help='override settings of the config, such as test_dataloader.num_workers=0',
        )


class StoreOnce(argparse._StoreAction):
    """The store action of argparse, except that it refuses a list that is given twice.

    A user who gives a list twice expects both lists, but argparse keeps the last one only. A single value may be given
    again, and the last one counts, so a script can override its own arguments.
    """

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if self.option_strings and isinstance(values, list) and self.dest in parser.given:
            raise argparse.ArgumentError(self, 'must be given once; found it twice')
        parser.given.add(self.dest)
        super().__call__(parser, namespace, values, option_string)


class ConfigOptions(DictAction):
    """Parses ``--cfg-options``: KEY=VALUE pairs whose keys are dotted names; each key may be given once in a list.

    mmengine's parser drops the spaces of a value. This action keeps the spaces of a text.
    """

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        texts = {}
        for word in values:
            key, separator, value = word.partition('=')
            if not separator or not all(key.split('.')) or re.search(r'\s', key):
                raise argparse.ArgumentError(self, f'takes key=value; found {quoted(word)}')
            if not value.strip():
                raise argparse.ArgumentError(self, f'{quoted(word)} has no value; give one, such as None')
            if value.startswith(('(', '[')) and any(value.count(a) != value.count(b) for a, b in ('()', '[]')):
                raise argparse.ArgumentError(self, f'{quoted(word)} opens a bracket and does not close it')
            if key in texts:
                raise argparse.ArgumentError(self, f'sets {quoted(key)} twice; give it once')
            texts[key] = value
        try:
            super().__call__(parser, namespace, values, option_string)
        except (ValueError, AssertionError, RecursionError) as error:
            raise argparse.ArgumentError(self, f'takes key=value ({first_line(error)})') from error
        for key, value in texts.items():
            if ' ' in value.strip() and not re.search(r'[][(),]', value):
                getattr(namespace, self.dest)[key] = value.strip('\'"')


def guarded(command: Callable[[Sequence[str]], int | None], argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status: the command's own, or 2 after a mistake of the user.

    A mistake of the user is printed as one sentence on stderr. With the environment variable MMADV_TRACEBACK=1, the
    traceback is printed before the sentence. Any other error is raised.

    An interrupt from the keyboard gives 130, as in shells. Schedulers and terminals send SIGTERM and SIGHUP; these
    signals stop the command in the same way and give 143 and 129.

    Args:
        command: function that takes the arguments and returns the exit status; None means 0.
        argv: the arguments; by default those of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    received: list[int] = []
    try:
        with _stopped_by_signals(received), escaped_messages():
            return command(arguments) or 0
    except KeyboardInterrupt as interrupt:
        print(printable(f'interrupted: {interrupt}', lines=True) if str(interrupt) else 'interrupted', file=sys.stderr)
        return 128 + (received[0] if received else signal.SIGINT)
    except Exception as error:
        sentence = user_sentence(error)
        if sentence is None:
            raise
        if os.environ.get(TRACEBACK_VARIABLE, '0') not in ('', '0'):
            traceback.print_exc()
        print(f'error: {printable(sentence)}', file=sys.stderr)
        return 2


@contextmanager
def _stopped_by_signals(received: list[int]) -> Iterator[None]:
    """Makes SIGTERM and SIGHUP raise KeyboardInterrupt inside the block, and appends them to ``received``.

    A signal that is already ignored, such as SIGHUP under nohup, stays ignored. In a forked process the signal ends the
    process.
    """
    owner = os.getpid()

    def stop(number: int, frame: Any) -> None:
        if os.getpid() != owner:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        received.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # only the main thread can handle signals
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        for number, handler in before.items():
            if handler != signal.SIG_IGN:
                signal.signal(number, stop)
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


def user_sentence(error: BaseException) -> str | None:
    """Returns the sentence for an error that a mistake of the user caused; None for any other error."""
    message = str(error)
    if isinstance(error, UserError):
        if re.match(r'Caught \w+ in ', message):
            # An error from a worker process has a whole traceback as its message; the sentence is at its end.
            message = re.split(r'\nmmadv\.\S*?Error: ', message)[-1]
        return message.strip()
    if isinstance(error, torch.OutOfMemoryError):
        return f'out of memory on the accelerator ({first_line(error)}); use a smaller batch or smaller images'
    if is_out_of_memory(error):
        return f'out of memory ({first_line(error)}); use a smaller batch or smaller images'
    if isinstance(error, RuntimeError) and re.search(r'DataLoader worker \(pid.*\) (exited|is killed)', message):
        return (
            f'a process that loads data was lost ({first_line(error)}); it may have run out of memory: use fewer, '
            'such as --cfg-options test_dataloader.num_workers=0'
        )
    unregistered = re.search(r'(\S+) is not in the (\S+) registry', message)
    if isinstance(error, KeyError) and unregistered:
        name, registry = unregistered.groups()
        name = name.strip('"\'')
        return f"the config names the type '{name}', which the registry {registry} does not know; check its spelling"
    single = re.search(
        r'Expected more than 1 value per channel when training, got input size torch.Size\((.*)\)', message
    )
    if isinstance(error, ValueError) and single:
        return (
            f'a batch norm gets one value for each channel (input size {single[1]}), which has no variance; train with '
            'a batch_size of 2 or more in each process, and without a last batch of one image (drop_last=True)'
        )
    channels = re.search(r'expected input\S* to have (\d+) channels, but got (\d+) channels instead', message)
    if isinstance(error, RuntimeError) and channels:
        return (
            f'the network takes {channels[1]} channels and got {channels[2]}; check in_channels of the model, and '
            'color_type of LoadImageFromFile'
        )
    outside = re.search(r'Target (-?\d+) is out of bounds', message)
    if isinstance(error, IndexError) and outside:
        return (
            f'a training label holds the value {outside[1]}, outside the classes of the model; check num_classes, '
            'reduce_zero_label and the label files'
        )
    return None


@contextmanager
def naming(option: str) -> Iterator[None]:
    """Puts the name of an option before the message of each error in the block; an empty name changes nothing."""
    try:
        yield
    except UserError as error:
        raise UserError(f'{option}: {error}' if option else str(error)) from error


def load_config(path: str, options: Mapping[str, Any] | None = None, what: str = 'config') -> Config:
    """Returns a config file with its bases, and ``--cfg-options`` merged in.

    Args:
        path: path of the file, or the name of a config that mmadv brings along, such as ``'pir_at/x.py'``. If there is
            such a file, it comes first.
        options: settings of ``--cfg-options``.
        what: name of the file's role in error messages.

    Raises:
        UserError: there is no such file, it does not parse or run, or nothing reads one of its keys.
    """
    file = config_file(path, what)
    try:
        config = Config.fromfile(file)
    except UserError as error:
        raise UserError(f'{what} {path}: {error}') from error
    except SyntaxError as error:
        where = f', line {error.lineno}' if error.lineno else ''
        raise UserError(f'{what} {path} is not valid Python{where}: {error.msg}; is it cut short?') from error
    except ImportError as error:
        raise UserError(f'{what} {path} cannot be loaded: {import_sentence(error)}') from error
    except (Exception, SystemExit) as error:
        if type(error) is RuntimeError and not str(error).strip():  # from mmengine's placeholder of an import
            raise UserError(
                f'{what} {path} calls what it imports, which a config cannot; write a dict with its name '
                "as type, such as attack = dict(type='sea', radius='4/255', iterations=100)"
            ) from error
        raise UserError(f'{what} {path} cannot be loaded: {type(error).__name__}: {first_line(error)}') from error
    register_all_modules(init_default_scope=True)
    before = config.copy()
    if options:
        try:
            config.merge_from_dict(dict(options))
        except Exception as error:
            raise UserError(f'--cfg-options does not fit {what} {path}: {first_line(error)}') from error
    if what not in ('attack config', 'hierarchy'):
        check_kinds(config, path)
        check_options(options or {}, before, config)
        check_config(config, path)
        for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            if isinstance(config.get(key), Mapping):
                config[key] = without_idle_workers(config[key])
    return config


def config_file(path: str, what: str = 'config') -> str:
    """Returns the path itself if the file exists, else the path of mmadv's own config of this name.

    Args:
        path: path of a file, or a path inside mmadv's folder ``configs``, with or without ``configs/`` before it.
        what: name of the file's role in error messages.

    Raises:
        UserError: neither file exists; the message names the nearest config of mmadv.
    """
    if os.path.isfile(path):
        return path
    if os.path.exists(path):
        raise UserError(f'{what} {path} is not a file; give the path of a config file')
    try:
        return cfg(path.removeprefix('configs/'))
    except UserError as error:
        raise UserError(f'{what} {path} does not exist, and {error}') from None


def command_text(name: str, argv: Sequence[str], processes: int = 1) -> str:
    """Returns the shell command line that runs a sub-command again.

    Args:
        name: name of the sub-command.
        argv: arguments of the sub-command.
        processes: number of processes that torchrun starts; with 1 the command runs without torchrun.

    >>> command_text('test', ['my config.py', '--attack', 'sea'])
    "mmadv test 'my config.py' --attack sea"
    """
    alone = processes == 1
    start = ['mmadv'] if alone else ['torchrun', f'--nproc_per_node={processes}', '-m', 'mmadv']
    return shlex.join([*start, name, *argv])


def require(config: Config, path: str, keys: Sequence[str]) -> None:
    """Raises UserError if a key is missing in the config, for example because the file is cut short."""
    missing = [key for key in keys if config.get(key) is None]
    if missing:
        raise UserError(f"config {path} has no '{missing[0]}'; is it cut short, or a base that is to be inherited?")


def work_dir(config: Config, path: str, chosen: str | None) -> str:
    """Returns the work folder of a training: the chosen one, else the config's, else work_dirs/<name of the config>."""
    return chosen or config.get('work_dir') or str(Path('work_dirs') / Path(path).stem)


def set_local_rank(arguments: argparse.Namespace) -> None:
    """Tells mmengine's launchers the rank that torch.distributed.launch passes as an argument.

    Raises:
        UserError: the launcher named by the arguments did not start this process.
    """
    variables = LAUNCHERS.get(arguments.launcher, ())
    missing = [name for name in variables if name not in os.environ]
    if missing:
        starter = STARTERS[arguments.launcher]
        raise UserError(
            f'--launcher {arguments.launcher} needs the environment variable {missing[0]}, which {starter} sets; '
            'start the command by it, or leave --launcher out'
        )
    if arguments.local_rank and not variables:
        raise UserError(f'--local-rank {arguments.local_rank} is for --launcher pytorch; leave it out')
    os.environ.setdefault('LOCAL_RANK', str(arguments.local_rank))


def launched_rank(arguments: argparse.Namespace) -> int:
    """Returns the rank of this process before the process group exists; 0 is the first or only process."""
    return int(os.environ[RANKS[arguments.launcher]]) if arguments.launcher in RANKS else 0


def join_processes_on_cpu(config: Config) -> None:
    """Initialises the process group of torchrun with gloo if there is no accelerator; mmengine's launcher needs one.

    Args:
        config: config with the launcher; if it names no wrapper of the model, one is set.
    """
    if config.get('launcher') != 'pytorch' or torch.cuda.is_available():
        return
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group('gloo')
    if config.get('model_wrapper_cfg') is None:
        config.model_wrapper_cfg = {'type': 'MMDistributedDataParallel', 'device_ids': None}
