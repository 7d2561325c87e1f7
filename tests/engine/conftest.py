"""Fixtures of a tiny dataset, config and trained checkpoint."""

from contextlib import contextmanager

import pytest
import tiny_project
import torch

from mmadv.evaluation.result_store import ResultStore


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


@pytest.fixture
def interrupted(monkeypatch):
    """A context whose run is interrupted (Ctrl-C) when it has stored so many records."""

    @contextmanager
    def after(records):
        append, left = ResultStore.append, [records]

        def stopped(self, record):
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            append(self, record)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(ResultStore, 'append', stopped)
            yield

    return after
