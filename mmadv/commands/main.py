"""The command ``mmadv``: its sub-commands and their functions."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

import mmadv
from mmadv.commands.command_line import guarded
from mmadv.errors import UserError, nearest


class Command(NamedTuple):
    """A sub-command.

    Attributes:
        module: module of ``mmadv.commands``, imported when the command is called.
        function: function ``run_NAME`` of the module; it takes the arguments and returns the exit status, None for 0.
        summary: one line that says what the command does.
    """

    module: str
    function: str
    summary: str


COMMANDS = {
    'train': Command('training', 'run_train', 'train a segmentor, adversarially if its config says so'),
    'test': Command('testing', 'run_test', 'attack a segmentor and write how robust it is'),
    'card': Command('card', 'run_card', 'measure all that is asked about the robustness of a model, on one page'),
    'certify': Command('certifying', 'run_certify', 'certify a segmentor by randomized smoothing'),
    'synthesize': Command('synthesizing', 'run_synthesize', 'paint images with the gradients of segmentors'),
    'convert': Command('converting', 'run_convert', 'rename the weights of a public checkpoint'),
    'prepare': Command('preparing', 'run_prepare', 'check, convert and count a downloaded dataset'),
    'report': Command('reporting', 'run_report', 'compare the results of several runs'),
    'reproduce': Command('reproducing', 'run_reproduce', 'repeat an experiment of a paper'),
    'demo': Command('demonstrating', 'run_demo', 'train, attack and report on small digit scenes'),
}


def usage() -> str:
    """Returns the help text of ``mmadv`` itself."""
    width = max(map(len, COMMANDS))
    lines = [f'  {name:<{width}}  {command.summary}' for name, command in COMMANDS.items()]
    return '\n'.join(
        [
            'usage: mmadv COMMAND ...',
            '',
            'Adversarial training and attack evaluation for MMSegmentation.',
            '',
            'commands:',
            *lines,
            '',
            'options:',
            '  -h, --help  show this help; mmadv COMMAND --help shows that of a command',
            '  --version   show the version',
            '',
            'example:',
            '  mmadv train demo/pspnet_clean_digits.py --work-dir work_dirs/clean',
        ]
    )


def run(argv: Sequence[str]) -> int | None:
    """Runs the sub-command that the arguments name, and returns its exit status; None means 0.

    Raises:
        UserError: the sub-command is missing or unknown, or there is a mistake in its arguments.
    """
    if not argv:
        raise UserError(f'a command is missing; known are {", ".join(COMMANDS)}; see mmadv --help')
    name, *rest = argv
    if name in ('-h', '--help'):
        print(usage())
        return None
    if name == '--version':
        print(f'mmadv {mmadv.__version__}')
        return None
    if name not in COMMANDS:
        raise UserError(f"unknown command '{name}'{nearest(name, COMMANDS)}")
    command = COMMANDS[name]
    return getattr(import_module(f'mmadv.commands.{command.module}'), command.function)(rest)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0; 1 if a run failed on some images; 2 after a mistake of the user."""
    return guarded(run, sys.argv[1:] if argv is None else argv)
