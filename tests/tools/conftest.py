"""Fixtures of a tiny dataset, config and trained checkpoint."""

import pytest
import tiny_project
import torch

from mmadv.commands.command_line import TRACEBACK_VARIABLE
from mmadv.commands.main import main


@pytest.fixture(autouse=True, scope='session')
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope='session')
def tiny(tmp_path_factory):
    """A folder with data/, config.py and trained.pth."""
    root = tmp_path_factory.mktemp('tiny')
    tiny_project.write_dataset(root / 'data')
    config = tiny_project.write_config(root / 'config.py', root / 'data')
    tiny_project.train(config, root / 'work')
    (root / 'work' / 'iter_60.pth').rename(root / 'trained.pth')
    return root


def _main(command):
    return lambda argv: main([command, *map(str, argv)])


@pytest.fixture(scope='session')
def attack_tool():
    """Mmadv test: arguments -> exit status."""
    return _main('test')


@pytest.fixture(scope='session')
def train_tool():
    """Mmadv train: arguments -> exit status."""
    return _main('train')


@pytest.fixture(scope='session')
def report_tool():
    """Mmadv report: arguments -> exit status."""
    return _main('report')


@pytest.fixture(scope='session')
def certify_tool():
    """Mmadv certify: arguments -> exit status."""
    return _main('certify')


@pytest.fixture(scope='session')
def synthesize_tool():
    """Mmadv synthesize: arguments -> exit status."""
    return _main('synthesize')


@pytest.fixture
def project(tiny, tmp_path, monkeypatch):
    """A fresh folder with its own data and config, and the trained checkpoint; the current folder."""
    tiny_project.write_dataset(tmp_path / 'data')
    tiny_project.write_config(tmp_path / 'config.py', tmp_path / 'data')
    (tmp_path / 'trained.pth').write_bytes((tiny / 'trained.pth').read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(TRACEBACK_VARIABLE, raising=False)
    return tmp_path
