"""A free port for processes that talk to each other."""

import socket

import pytest


@pytest.fixture
def unused_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]
