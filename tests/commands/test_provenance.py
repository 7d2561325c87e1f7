"""The code of mmadv in what a result says of itself."""

import subprocess

import pytest

from mmadv.commands.provenance import NOT_DECISIVE, code_checksum, code_commit, decisive_versions, versions


@pytest.fixture
def fresh():
    code_checksum.cache_clear()
    code_commit.cache_clear()
    yield
    code_checksum.cache_clear()
    code_commit.cache_clear()


def git(folder, *words):
    identity = ['-c', 'user.name=a', '-c', 'user.email=a@b']
    return subprocess.run(['git', '-C', folder, *identity, *words], check=True, capture_output=True, text=True).stdout


def test_checksum_and_commit_follow_the_code(tmp_path, fresh):
    package = tmp_path / 'package'
    package.mkdir()
    (package / '__init__.py').write_text('a = 1\n')
    git(tmp_path, 'init', '-q')
    first = code_checksum(package)
    assert code_commit(package) is None  # in a checkout, but not of it, as an installed package may be
    git(tmp_path, 'add', '.')
    git(tmp_path, 'commit', '-qm', 'one')
    code_commit.cache_clear()
    commit = git(tmp_path, 'rev-parse', 'HEAD').strip()
    assert code_commit(package) == commit
    (package / '__init__.py').write_text('a = 2\n')
    code_checksum.cache_clear()
    code_commit.cache_clear()
    assert code_commit(package) == f'{commit} and changes'
    assert len(first) == 16 and code_checksum(package) != first
    (package / '__init__.py').write_text('a = 1\n')
    code_checksum.cache_clear()
    assert code_checksum(package) == first
    (package / '__init__.py').rename(package / 'other.py')
    code_checksum.cache_clear()
    assert code_checksum(package) != first


def test_what_must_not_change_when_a_run_goes_on():
    assert set(versions()) - set(decisive_versions()) <= set(NOT_DECISIVE)
    assert {'mmadv', 'mmadv_code', 'torch'} <= set(decisive_versions())
