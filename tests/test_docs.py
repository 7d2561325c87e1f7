"""The documentation site builds without a broken link, and what its pages and examples say runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from forks import run_script

from mmadv.commands.command_line import config_file
from mmadv.commands.main import COMMANDS
from mmadv.registry import ATTACKS, OBJECTIVES, THREATS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / 'docs'
RECIPES = re.findall(
    r'^## (.+?)\n.*?```python\n(.*?)```', (DOCS / 'extending.md').read_text(encoding='utf-8'), re.S | re.M
)


def run(command, tmp_path):
    environment = {'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', 'PATH': '/usr/bin:/bin', 'NO_MKDOCS_2_WARNING': '1'}
    return subprocess.run(
        [sys.executable, '-W', 'ignore', *command], cwd=tmp_path, env=environment, capture_output=True, text=True
    )


def test_the_site_builds_and_every_link_leads_somewhere(tmp_path):
    done = run(['-m', 'mkdocs', 'build', '--strict', '-f', ROOT / 'mkdocs.yml', '-d', tmp_path / 'site'], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    commands = (tmp_path / 'site' / 'commands.html').read_text(encoding='utf-8')
    assert all(f'usage: mmadv {name}' in commands for name in COMMANDS)
    # Every page was built, and none loads anything from elsewhere.
    pages = {path.stem for path in DOCS.glob('*.md')}
    assert {path.stem for path in (tmp_path / 'site').glob('*.html')} == pages | {'404'}
    start = (tmp_path / 'site' / 'index.html').read_text(encoding='utf-8')
    assert not re.findall(r'<(?:script|link)[^>]+(?:src|href)="https?://', start)


@pytest.fixture
def registries(monkeypatch):
    """The registries as they were, after a recipe has added to them."""
    from mmseg.registry import DATASETS, MODELS

    from mmadv.checkpoints.families import SOURCES
    from mmadv.report.comparison import FORMATS
    from mmadv.report.measurement import MEASUREMENTS

    for registry in (ATTACKS, OBJECTIVES, THREATS):
        monkeypatch.setattr(registry, '_entries', dict(registry._entries))
    for registry in (DATASETS, MODELS):
        monkeypatch.setattr(registry, '_module_dict', dict(registry._module_dict))
    tables = [(table, dict(table)) for table in (SOURCES, MEASUREMENTS, FORMATS)]
    yield
    for table, before in tables:
        table.clear()
        table.update(before)


@pytest.mark.parametrize(('title', 'code'), RECIPES, ids=[title for title, _ in RECIPES])
def test_a_recipe_runs_as_it_stands(title, code, registries):
    assert 'assert' in code
    exec(compile(code, f'extending.md, {title}', 'exec'), {'__name__': 'recipe'})


def test_there_is_a_recipe_for_every_part():
    assert {title for title, _ in RECIPES} >= {
        *('An objective', 'A threat model', 'An attack', 'A data set', 'A training method', 'A checkpoint family'),
        *('A measurement', 'An output format'),
    }


@pytest.mark.parametrize(
    ('arguments', 'line'),
    [
        (['own_objective.py'], r'ClippedMargin: accuracy under attack \d+\.\d %'),
        (['attack_a_torch_model.py', '--steps', '2'], r'SEA, 20 iterations of each loss: accuracy \d+\.\d %'),
        (['evaluate_an_mmseg_model.py', 'out', '--iterations', '2'], r'mIoU under PGD at 4/255 \d+\.\d %'),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else '',
)
def test_an_example_runs_to_its_last_line(arguments, line, tmp_path):
    printed = run_script(ROOT / 'examples' / arguments[0], tmp_path, *arguments[1:])
    assert re.fullmatch(line + '.*', printed.splitlines()[-1])


def test_every_example_is_run_here():
    assert len(list((ROOT / 'examples').glob('*.py'))) == 3


@pytest.mark.parametrize('page', sorted(DOCS.glob('*.md')), ids=lambda path: path.stem)
def test_the_configs_and_options_that_a_page_names_exist(page):
    text = page.read_text(encoding='utf-8')
    for name, config in re.findall(r'mmadv (train|test) (\w[\w/]*\.py)', text):
        if config not in ('robust.py', 'CONFIG', 'my_config.py'):
            config_file(config, f'{page.name}: {name}')
