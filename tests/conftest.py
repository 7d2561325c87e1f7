"""What all tests share."""

import re
import socket
import tempfile

import pytest
import torch
from yapf.yapflib import yapf_api

# One torch thread, so that small tensors do not wait for a second one.
torch.set_num_threads(1)


# Folders of a test and of a run, whose names are new each time.
NAMES = r"/(?:pytest-of-[^/]+/pytest-\d+/(?:popen-gw\d+/)?|mmadv-)[^/'\"]+"
FOLDER = re.compile(re.escape(tempfile.gettempdir()) + NAMES)


@pytest.fixture(autouse=True, scope='session')
def configs_formatted_once():
    """MMEngine formats a config four times in a run, for a second each: the same text is formatted once.

    Names of temporary folders are left out of the comparison, and put back.
    """
    format_code, formatted = yapf_api.FormatCode, {}

    def remember(text, **options):
        folders = list(dict.fromkeys(FOLDER.findall(text)))
        for number, folder in enumerate(folders):
            text = text.replace(folder, f'/temporary-{number}-')
        if text not in formatted:
            formatted[text] = format_code(text, **options)
        code, changed = formatted[text]
        for number, folder in enumerate(folders):
            code = code.replace(f'/temporary-{number}-', folder)
        return code, changed

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
