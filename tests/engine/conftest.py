"""Fixtures of a tiny dataset, config and trained checkpoint."""

import pytest
import tiny_project
import torch


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
