"""Wheel and sdist: what they hold, and that the command works from each."""

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import mmadv

ROOT = Path(__file__).parents[1]
BUILD = 'from setuptools.build_meta import build_{0} as build; import sys; print(build(sys.argv[1]))'
FILES = ('README.md', 'LICENSE', 'CHANGELOG.md', 'CONTRIBUTING.md', 'Makefile', 'constraints-lowest.txt', 'mkdocs.yml')
FOLDERS = ('mmadv', 'benchmarks', 'configs', 'docs', 'examples', 'projects', 'tests', 'tools')
INSTALL = ('-m', 'pip', 'install', '--quiet', '--no-index', '--no-deps', '--no-build-isolation', '--target')


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    """Returns the files that are built from a copy of the source, so that the build leaves nothing behind here."""
    source = tmp_path_factory.mktemp('source')
    for name in (*FILES, 'pyproject.toml', 'MANIFEST.in', 'setup.py'):
        shutil.copy(ROOT / name, source)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns('__pycache__'))
    out = tmp_path_factory.mktemp('dist')
    for kind in ('wheel', 'sdist'):
        command = [sys.executable, '-c', BUILD.format(kind), str(out)]
        subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=120)
    (wheel,), (sdist,) = out.glob('*.whl'), out.glob('*.tar.gz')
    return {'wheel': wheel, 'sdist': sdist}


@pytest.fixture(scope='module')
def wheel(built):
    with zipfile.ZipFile(built['wheel']) as archive:
        yield archive


@pytest.mark.parametrize('kind', ['wheel', 'sdist'])
def test_the_command_runs_from_what_was_built(built, kind, tmp_path):
    site = tmp_path / 'site'
    subprocess.run([sys.executable, *INSTALL, site, built[kind]], check=True, capture_output=True, timeout=300)
    environment = {'PYTHONPATH': str(site), 'PATH': '/usr/bin:/bin'}
    command = [sys.executable, site / 'bin' / 'mmadv', 'train', 'demo/pspnet_clean_digit.py']
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert (
        "mmadv has no config 'demo/pspnet_clean_digit.py'; did you mean 'demo/pspnet_clean_digits.py'?" in done.stderr
    )
    assert (site / 'mmadv' / 'py.typed').is_file()
    # mmengine's installer looks for the tools here.
    tools = {path.name for path in (ROOT / 'tools').glob('*.py')}
    assert {path.name for path in (site / 'mmadv' / '.mim' / 'tools').glob('*.py')} == tools


def test_sdist_holds_what_the_tests_need(built):
    with tarfile.open(built['sdist']) as archive:
        packed = {name.partition('/')[2] for name in archive.getnames()}
    folders = [path for name in FOLDERS for path in (ROOT / name).rglob('*') if '.mim' not in path.parts]
    files = {path.relative_to(ROOT).as_posix() for path in folders if path.is_file() and path.suffix != '.pyc'}
    assert files | set(FILES) <= packed


def test_wheel_holds_the_templates_of_the_page(wheel):
    templates = {path.relative_to(ROOT).as_posix() for path in (ROOT / 'mmadv/report/templates').iterdir()}
    assert len(templates) > 1 and templates <= set(wheel.namelist())


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
        bounds = [one.removeprefix(package) for one in required if re.match(rf'{package}\W', one)]
        assert len(bounds) == 1 and re.fullmatch(r'>=[\d.]+', bounds[0]), f'{package} must have no upper bound'


def test_changelog_has_this_version():
    changelog = (ROOT / 'CHANGELOG.md').read_text(encoding='utf-8')
    newest = re.search(r'^## (.+)$', changelog, re.MULTILINE)
    assert newest is not None and re.fullmatch(re.escape(mmadv.__version__) + r' \(\d{4}-\d\d-\d\d\)', newest[1])


def test_the_lowest_versions_are_those_that_the_lowest_constraints_install():
    section = (ROOT / 'setup.py').read_text(encoding='utf-8').partition('install_requires=[')[2].partition(']')[0]
    required = re.findall(r"'([^']+)'", section)
    lines = (ROOT / 'constraints-lowest.txt').read_text(encoding='utf-8').splitlines()
    pinned = [line.replace('==', '>=') for line in lines if not line.startswith('#')]
    assert required == pinned
    assert '--constraint constraints-lowest.txt' in (ROOT / 'Makefile').read_text(encoding='utf-8')


def test_extras_are_those_that_pages_and_messages_name():
    section = (ROOT / 'setup.py').read_text(encoding='utf-8').partition('extras_require={')[2]
    extras = set(re.findall(r"^        '(\w+)': ", section, re.MULTILINE))
    pages = [*ROOT.glob('*.md'), *(ROOT / 'docs').glob('*.md')]
    texts = [path.read_text(encoding='utf-8') for path in (*pages, *(ROOT / 'mmadv').rglob('*.py'))]
    named = re.findall(r"'(?:mmadv|\.)\[([\w,]+)\]'", '\n'.join(texts))
    assert {extra for names in named for extra in names.split(',')} == extras
    installation = (ROOT / 'docs' / 'installation.md').read_text(encoding='utf-8')
    assert set(re.findall(r"^\| `pip install -e '\.\[(\w+)\]'`", installation, re.MULTILINE)) == extras
