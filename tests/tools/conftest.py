"""Fixtures of a tiny dataset, config and trained checkpoint."""

import importlib.util
from pathlib import Path

import pytest
import tiny_project
import torch

from mmadv.commands.command_line import TRACEBACK_VARIABLE


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


def _main(tool):
    path = Path(__file__).parents[2] / 'tools' / f'{tool}.py'
    specification = importlib.util.spec_from_file_location(f'mmadv_tools_{tool}', path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.main


@pytest.fixture(scope='session')
def attack_tool():
    """The main function of tools/test.py."""
    return _main('test')


@pytest.fixture(scope='session')
def train_tool():
    """The main function of tools/train.py."""
    return _main('train')


@pytest.fixture(scope='session')
def report_tool():
    """The main function of tools/report.py."""
    return _main('report')


@pytest.fixture(scope='session')
def certify_tool():
    """The main function of tools/certify.py."""
    return _main('certify')


@pytest.fixture(scope='session')
def synthesize_tool():
    """The main function of tools/synthesize.py."""
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
