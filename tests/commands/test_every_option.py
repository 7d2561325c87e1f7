"""Every option of every command is given values of the wrong kind: each is refused in one sentence, before any work.

The options are read from the parsers, so a new one is tested as it is. A value that is right for an option is in
``RIGHT``, with the reason.
"""

import argparse
import importlib

import pytest
from mmengine.config import Config
from stopped_commands import RIGHT_ARGUMENTS, outcome

from mmadv.commands.argument_types import text
from mmadv.commands.main import COMMANDS
from mmadv.printing import printable

VALUES = {
    'empty': '',
    'blank': ' ',
    'word': 'banana',
    'negative': '-1',
    'zero': '0',
    'one': '1',
    'half': '0.5',
    'huge': '1e30',
    'huge integer': str(2**70),
    'largest integer': str(2**63 - 1),
    'NaN': 'nan',
    'infinite': 'inf',
    'negative infinite': '-inf',
    'missing file': 'missing/none.py',
    'folder': 'folder',
    'file': 'file.txt',
    'long name': 'x' * 300,
    'control characters': 'a\n\x1b[2Jerror: all is lost',
    'not UTF-8': 'a\udcff',
}
# Kinds that the words of an option after its first are given too.
ALSO_LATER = ('empty', 'word', 'one', 'negative', 'NaN', 'missing file', 'folder', 'file')
# Where a text is wanted, one number does for all of them.
TOLD_APART_BY_NUMBERS = ('half', 'huge', 'huge integer', 'largest integer', 'infinite', 'negative infinite', 'zero')

# Options that an option needs beside it.
COMPANIONS = {
    '--samples': ['--smooth', '0.1'],
    '--minimal-share': ['--minimal-radius', '8/255'],
    '--minimal-tolerance': ['--minimal-radius', '8/255'],
    '--calibration-corruptions': ['--calibration'],
    '--calibration-severity': ['--calibration'],
    '--severities': ['--corruptions', 'fog'],
    '--corruption-scale': ['--corruptions', 'fog'],
    '--frost-photographs': ['--corruptions', 'frost'],
    'card --frost-photographs': [],
}
# What the other words of an option with several are.
OTHER_WORDS = {
    '--source': ['config.py', 'trained.pth'],
    '--box': ['1', '1', '1', '1'],
    '--image-size': ['224', '224'],
    '--model': ['config.py', 'trained.pth', '0.1'],
}
# What sentences call an argument, where that is not its name.
ALIASES = {'input': 'checkpoint', 'name': 'dataset', 'root': 'folder', 'folders': 'result'}

# Names of files and folders may be any text; these are not there yet.
NEW = {'word', 'one', 'NaN', 'missing file'}
FOLDER = {*NEW, 'negative', 'folder'}
COUNT = {'one'}
COUNT_OR_ZERO = {'zero', 'one'}


def of_each(options, values):
    return dict.fromkeys(options, values)


# (Command and) option or argument -> values that are right for it.
RIGHT = {
    **of_each(('--out', '--work-dir'), FOLDER),
    'convert output': {'word', 'negative', 'one', 'NaN', 'file'},  # a file is replaced, its folder has to be there
    'report --names': NEW | {'folder', 'file'},  # any text is a name
    'prepare root': {'folder'},
    'prepare --source': {'folder'},
    **of_each(
        ('--limit', '--iterations', '--batch-size', '--n0', '--n', '--steps', '--samples', '--count', '--seeds'), COUNT
    ),
    **of_each(('--epochs', '--per-class', '--check', '--gradients'), COUNT),
    **of_each(('--seed', '--show', '--frames'), COUNT_OR_ZERO),
    '--local-rank': {'zero'},  # the default, of a run of one process
    **of_each(('--sigma', '--smooth', '--minimal-share'), {'one', 'half'}),
    '--alpha': {'half'},
    '--tau': {'half'},
    '--weight': {'one', 'half'},
    '--penalty': {'zero', 'one', 'half'},
    **of_each(('--eps', '--eps-l2'), {'one', 'half'}),  # the whole range of images, and half of it
    '--minimal-radius': {'one'},
    '--severities': {'one'},
    **of_each(('--calibration', '--calibration-severity'), COUNT),
    '--step-size': {'one', 'half'},
    '--model': {'one'},  # its last word is a deviation
    '--box': COUNT_OR_ZERO,  # a corner may be 0
    **of_each(('images', '--images'), {'one'}),  # the data has two images
    'target_class': {'one'},  # the number of a class does for its name
}


def parsers():
    """Yields the name and the parser of every command, of its sub-commands where it has some."""
    for name, command in COMMANDS.items():
        parser = importlib.import_module(f'mmadv.commands.{command.module}').parser()
        inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        if not inner:
            yield name, parser
        for action in inner:
            for task, task_parser in action.choices.items():
                yield f'{name} {task}', task_parser


def name_of(action):
    return action.option_strings[-1] if action.option_strings else action.dest


ACTIONS = {
    (command, name_of(action)): action
    for command, parser in parsers()
    for action in parser._actions
    if not isinstance(action, argparse._HelpAction)
}
# An option that several sub-commands of a command share is tried at the first.
TRIED = {
    (command.split()[0], name, action.nargs, action.type, action.help): (command, name)
    for (command, name), action in reversed(ACTIONS.items())
}.values()
POSITIONALS = {
    command: [name for (other, name), action in ACTIONS.items() if other == command and not action.option_strings]
    for command in RIGHT_ARGUMENTS
}


def without(arguments, flag):
    """Returns a command line without an option and its words."""
    words = list(arguments)
    if flag in words:
        start = words.index(flag)
        end = next((n for n in range(start + 1, len(words)) if words[n].startswith('--')), len(words))
        del words[start:end]
    return words


def lines(command, name):
    """Yields what is given to an option, by its kind, and the command line with it."""
    action, right = ACTIONS[command, name], RIGHT_ARGUMENTS[command]
    values = dict(VALUES)
    if action.type is text:
        values = {kind: value for kind, value in VALUES.items() if kind not in TOLD_APART_BY_NUMBERS}
    for choice in list(action.choices or ())[:1]:
        values |= {'misspelt': f'{choice}x', 'upper case': str(choice).swapcase()}
    for kind, value in values.items():
        if not action.option_strings:
            position = POSITIONALS[command].index(name)
            yield kind, value, [*right[:position], value, *right[position + 1 :]]
            continue
        rest = [*without(right, name), *COMPANIONS.get(f'{command} {name}', COMPANIONS.get(name, []))]
        if action.nargs in (None, '?', 0):
            yield kind, value, [*rest, f'{name}={value}']
            continue
        others = OTHER_WORDS.get(name, [value])
        for position in range(len(others)):
            if position and kind not in ALSO_LATER:
                continue
            yield (
                f'{kind} {position or ""}'.rstrip(),
                value,
                [*rest, name, *others[:position], value, *others[position + 1 :]],
            )


def plain(called):
    return called.lstrip('-').replace('_', ' ').replace('-', ' ').lower()


def names(sentence, command, name, value):
    """Returns whether a sentence names the option and what was found."""
    action = ACTIONS[command, name]
    words = plain(sentence)
    option = any(plain(called) in words for called in (name, str(action.metavar or name), ALIASES.get(name, name)))
    actual = printable(value)[:20] in sentence if value.strip() else f"'{value}'" in sentence
    return option and actual


def problems(command, name, capsys, root):
    right = RIGHT.get(f'{command} {name}', RIGHT.get(name, set()))
    accepted = set()
    for kind, value, argv in lines(command, name):
        got = outcome(command, argv, capsys, root)
        if got == 'accepted':
            accepted.add(kind.rstrip(' 123'))
            if kind.rstrip(' 123') not in right:
                yield kind, 'accepted'
        elif got.startswith('<'):
            yield kind, got
        elif not names(got, command, name, value):
            yield kind, f'does not name option and value: {got}'
    for kind in right - accepted:
        yield kind, 'is right, but refused'


@pytest.mark.parametrize(('command', 'name'), TRIED, ids=list(map(' '.join, TRIED)))
def test_values_of_the_wrong_kind_are_refused(command, name, stopped, capsys):
    assert dict(problems(command, name, capsys, stopped)) == {}


@pytest.mark.parametrize('command', RIGHT_ARGUMENTS)
def test_arguments_that_are_right_reach_the_work(command, stopped, capsys):
    assert outcome(command, RIGHT_ARGUMENTS[command], capsys, stopped) == 'accepted'


def test_the_options_are_all_there():
    """The walk over the parsers finds what is known to be there."""
    assert {('test', '--minimal-share'), ('synthesize target', '--norm'), ('reproduce pag-toy', '--weight')} <= {
        *ACTIONS
    }
    assert {command for command, _ in ACTIONS} == {*RIGHT_ARGUMENTS}


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--limt', '3'], "unrecognized arguments: --limt 3; did you mean '--limit'?"),
        (['--eps', '8/255', '--eps', '4/255'], '--eps must be given once; found it twice'),
        (['--local-rank', '3'], '--local-rank 3 is for --launcher pytorch'),
        (['--target', 'class:disk'], "the dataset has no class 'disk'; did you mean 'disc'?"),
        (['--target', 'masks:missing'], 'the folder missing does not exist'),
    ],
)
def test_arguments_that_do_not_go_together(words, message, stopped, capsys):
    arguments = without(RIGHT_ARGUMENTS['test'], words[0])
    assert message in outcome('test', [*arguments, *words], capsys, stopped)


@pytest.mark.parametrize(
    'word',
    [
        *('=', '=1', 'a', 'a=', '.=1', 'model.=1', 'model..type=x', 'mo del.type=x', 'modle.type=x', 'model.type= '),
        *('model.backbone.depth=(1', 'model.bakbone.depth=1', 'model.type=x model.type=y'),
    ],
)
def test_settings_that_are_none(word, stopped, capsys):
    words = word.split(' ') if word.count('=') > 1 else [word]
    sentence = outcome('certify', [*RIGHT_ARGUMENTS['certify'], '--cfg-options', *words], capsys, stopped)
    assert sentence.startswith('error: --cfg-options')


def top_level_values():
    """Yields settings of the wrong kind for every key of the config."""
    for key, value in Config.fromfile('config.py').items():
        if key not in ('metainfo', 'pipeline', 'dataset'):
            yield f'{key}=1' if isinstance(value, str) else f'{key}=banana'
            yield f'{key}=nan'
            yield f'{key}=[1,2]'


def test_settings_of_the_wrong_kind(stopped, capsys):
    """All commands load their config in one place; training reads the most of it."""
    actual = {}
    for word in top_level_values():
        actual[word] = outcome('train', [*RIGHT_ARGUMENTS['train'], '--cfg-options', word], capsys, stopped)
    wrong = {word: got for word, got in actual.items() if not got.startswith('error: config config.py: ')}
    assert wrong == {}
