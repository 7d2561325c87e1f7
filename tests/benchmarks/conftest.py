"""The scripts of benchmarks/ as modules, which import each other by name."""

import sys
from pathlib import Path

import pytest


@pytest.fixture(autouse=True, scope='module')
def scripts_path():
    """Puts benchmarks/ on the path."""
    folder = str(Path(__file__).parents[2] / 'benchmarks')
    sys.path.insert(0, folder)
    yield
    sys.path.remove(folder)
