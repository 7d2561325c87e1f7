"""What all tests share."""

import gc
import socket

import pytest
import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.visualization import Visualizer
from yapf.yapflib import yapf_api

# One torch thread, so that small tensors do not wait for a second one.
torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope='session')
def configs_without_layout():
    """MMEngine lays out the text of a config four times in a run, for a second each; here it stays one line a key."""
    format_code = yapf_api.FormatCode
    yapf_api.FormatCode = lambda text, **options: (text, False)
    yield
    yapf_api.FormatCode = format_code


@pytest.fixture(autouse=True, scope='module')
def objects_that_stay():
    """MMEngine collects garbage whenever it builds a dataset; what was imported stays, and need not be searched."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def managers_of_one_test():
    """MMEngine names loggers, message hubs and visualizers by config and second: two tests in one second share them.

    A logger of an earlier test would write into a stream that is closed, and a hub would name its best checkpoint.
    """
    yield
    for manager in (MMLogger, MessageHub, Visualizer):
        manager._instance_dict.clear()


@pytest.fixture(autouse=True)
def loading_as_torch_does_it(monkeypatch):
    """Commands that ran in this process for earlier tests have forced safe loading for good; undo it for the next."""
    monkeypatch.delenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', raising=False)


@pytest.fixture
def unused_port():
    """A free port for processes that talk to each other."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]
