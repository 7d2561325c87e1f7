"""A checkpoint with a key of a newline and escape sequences: one sentence at every command that loads one."""

import pytest
import torch
from stopped_commands import RIGHT_ARGUMENTS, outcome

KEY = 'decode_head.\x1b[2J\x1b[1;1H\nerror: all is lost'


@pytest.fixture
def hostile(stopped):
    weights = torch.load(stopped / 'trained.pth', weights_only=True)['state_dict']
    torch.save({'state_dict': {**weights, KEY: torch.zeros(1)}}, stopped / 'hostile.pth')
    yield stopped
    (stopped / 'hostile.pth').unlink()


@pytest.mark.parametrize(
    ('command', 'words'),
    [
        ('train', ['--resume', 'hostile.pth']),
        ('train', ['--cfg-options', 'load_from=hostile.pth']),
        ('test', ['--source', 'config.py', 'hostile.pth']),
        ('synthesize inpaint', ['--model', 'config.py', 'hostile.pth']),
        *((command, []) for command in RIGHT_ARGUMENTS if 'trained.pth' in RIGHT_ARGUMENTS[command]),
    ],
)
def test_a_key_of_several_lines_is_told_on_one(command, words, hostile, capsys):
    arguments = RIGHT_ARGUMENTS[command]
    if not words:
        arguments = ['hostile.pth' if word == 'trained.pth' else word for word in arguments]
    sentence = outcome(command, [*arguments, *words], capsys, hostile)
    assert 'the checkpoint hostile.pth holds a key with control characters' in sentence
    assert r"'decode_head.\x1b[2J\x1b[1;1H\nerror: all is lost'" in sentence
