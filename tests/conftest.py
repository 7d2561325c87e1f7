"""What all tests share."""

import socket

import pytest
import torch
from yapf.yapflib import yapf_api

# One torch thread, so that small tensors do not wait for a second one.
torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope='session')
def configs_formatted_once():
    """MMEngine formats a config four times in a run, for a second each: the same text is formatted once."""
    format_code, formatted = yapf_api.FormatCode, {}

    def remember(text, **options):
        if text not in formatted:
            formatted[text] = format_code(text, **options)
        return formatted[text]

    yapf_api.FormatCode = remember
    yield
    yapf_api.FormatCode = format_code


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
