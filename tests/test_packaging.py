import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import mmadv

ROOT = Path(__file__).parents[1]
BUILD = 'from setuptools.build_meta import build_wheel; import sys; print(build_wheel(sys.argv[1]))'


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """The wheel of a copy of the source, so that the build leaves nothing behind here."""
    source = tmp_path_factory.mktemp('source')
    for name in ('setup.py', 'pyproject.toml', 'MANIFEST.in', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, source)
    for name in ('mmadv', 'configs', 'tools', 'tests'):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns('__pycache__'))
    out = tmp_path_factory.mktemp('wheel')
    subprocess.run([sys.executable, '-c', BUILD, str(out)], cwd=source, check=True, capture_output=True, timeout=120)
    (path,) = out.glob('*.whl')
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_wheel_holds_every_config(wheel):
    configs = {path.relative_to(ROOT).as_posix() for path in (ROOT / 'configs').rglob('*.py')}
    assert len(configs) > 10
    packed = {name for name in wheel.namelist() if '.mim/configs' in name}
    assert packed == {f'mmadv/.mim/{name}' for name in configs}
    name = 'configs/demo/pspnet_clean_digits.py'
    assert wheel.read(f'mmadv/.mim/{name}') == (ROOT / name).read_bytes()
    assert 'mmadv/.mim/model-index.yml' in wheel.namelist()


def test_wheel_holds_every_module_and_nothing_else(wheel):
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / 'mmadv').rglob('*.py') if '.mim' not in path.parts}
    packed = {name for name in wheel.namelist() if name.endswith('.py') and '.mim' not in name}
    assert packed == modules


def test_wheel_states_version_and_dependencies(wheel):
    (name,) = [name for name in wheel.namelist() if name.endswith('METADATA')]
    metadata = wheel.read(name).decode()
    assert f'\nVersion: {mmadv.__version__}\n' in metadata
    assert '\nRequires-Python: >=3.10\n' in metadata
    required = [line.split(': ')[1] for line in metadata.splitlines() if line.startswith('Requires-Dist')]
    for package in ('torch', 'torchvision', 'timm'):
        assert package in required, f'{package} must stay unpinned'


def test_changelog_has_this_version():
    assert f'\n## {mmadv.__version__}\n' in (ROOT / 'CHANGELOG.md').read_text(encoding='utf-8')
