import pytest
from frost_colours import write_photographs


@pytest.fixture(scope='session')
def photographs(tmp_path_factory):
    return write_photographs(tmp_path_factory.mktemp('frost'))
