"""Commands that are stopped where their work begins: what they refuse before it, and that they write nothing."""

import copy
import functools
import shutil

import numpy as np
import pytest
import stored_results
import tiny_project
import torch
from mmengine.config import Config
from PIL import Image
from refusals import snapshot

from mmadv.commands import demonstrating, preparing, reporting, synthesizing, testing, training
from mmadv.commands.command_line import TRACEBACK_VARIABLE
from mmadv.commands.main import main
from mmadv.models.backbones import conversion
from mmadv.models.building import build_segmentor
from mmadv.report import RunResults
from mmadv.reproduction import pag_toy

# Command -> arguments that are right, up to its options.
RIGHT_ARGUMENTS = {
    'train': ['config.py', '--work-dir', 'work'],
    'test': ['config.py', 'trained.pth', '--attack', 'pgd', '--eps', '4/255', '--out', 'out'],
    'card': ['config.py', 'trained.pth', '--out', 'out'],
    'certify': ['config.py', 'trained.pth', '--sigma', '0.25', '--out', 'out'],
    'synthesize inpaint': ['config.py', 'trained.pth', '0', '--out', 'out'],
    'synthesize generate': ['config.py', 'trained.pth', '0', '--out', 'out'],
    'synthesize target': ['config.py', 'trained.pth', 'disc', '--out', 'out'],
    'convert': ['trained.pth', 'converted.pth', '--source', 'timm'],
    'prepare': ['voc', 'folder'],
    'report': ['run', '--out', 'out'],
    'reproduce pag-toy': ['--out', 'out'],
    'demo': ['--out', 'out'],
}


class Reached(Exception):
    """A command began its work."""


def reach(*args, **kwargs):
    raise Reached


class RunnerThatIsReached:
    from_cfg = staticmethod(reach)


@pytest.fixture(scope='session')
def command_folder(tmp_path_factory):
    """A folder with all that the arguments name."""
    root = tmp_path_factory.mktemp('options')
    tiny_project.write_dataset(root / 'data', images=2)
    config = tiny_project.write_config(root / 'config.py', root / 'data')
    torch.save({'state_dict': build_segmentor(Config.fromfile(str(config))).state_dict()}, root / 'trained.pth')
    (root / 'run').mkdir()
    RunResults.from_json(stored_results.content()).write(root / 'run')
    (root / 'folder').mkdir()
    (root / 'file.txt').write_text('no config, no checkpoint and no picture')
    Image.fromarray(np.full((32, 32), 255, np.uint8)).save(root / 'mask.png')
    return root


def cache(monkeypatch, owner, name):
    """Makes a function that reads files do so once for each arguments, and return copies of what it read."""
    read = functools.cache(getattr(owner, name))
    monkeypatch.setattr(owner, name, lambda *arguments: copy.deepcopy(read(*arguments)))


@pytest.fixture
def stopped(command_folder, monkeypatch):
    """Makes every command stop where its work begins."""
    monkeypatch.chdir(command_folder)
    monkeypatch.delenv(TRACEBACK_VARIABLE, raising=False)
    monkeypatch.setattr(training, 'build_segmentor', reach)
    monkeypatch.setattr(testing, 'Runner', RunnerThatIsReached)
    monkeypatch.setattr(synthesizing, '_load_models', reach)
    monkeypatch.setattr(conversion, 'convert', reach)
    for table in (preparing.WITH_SOURCE, preparing.ALONE):
        for name in table:
            monkeypatch.setitem(table, name, reach)
    monkeypatch.setattr(reporting, 'FORMATS', {'md': reach})
    monkeypatch.setattr(pag_toy, 'run', reach)
    monkeypatch.setattr(demonstrating, 'run_stage', reach)
    cache(monkeypatch, Config, 'fromfile')
    monkeypatch.setattr('mmengine.dataset.base_dataset.gc.collect', int)  # half a second for each dataset
    return command_folder


def outcome(command, argv, capsys, root):
    """Runs a command; returns 'accepted', or its sentence, or what went wrong in angle brackets."""
    before = snapshot(root)
    capsys.readouterr()
    try:
        status = main([*command.split(), *argv])
    except Reached:
        status = 'accepted'
    except BaseException as error:
        status = f'<traceback: {type(error).__name__}: {str(error)[:80]}>'
    errors = capsys.readouterr().err
    if snapshot(root) != before:
        for path in (root / 'out', root / 'work'):
            shutil.rmtree(path, ignore_errors=True)
        return '<something was written>'
    if status != 2:
        return status if isinstance(status, str) else f'<status {status}>'
    sentences = [line for line in errors.splitlines() if line.startswith('error: ')]
    if len(sentences) != 1 or not errors.rstrip().endswith(sentences[0]) or 'Traceback' in errors or '\x1b' in errors:
        return f'<no sentence: {errors[-200:]!r}>'
    return sentences[0]
