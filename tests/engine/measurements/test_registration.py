"""A measurement from outside, as the recipe of the docs has it: registered and named in a config, it is all there."""

import json
import re
from pathlib import Path

import pytest
from tiny_project import write_config

from mmadv.commands.command_line import guarded
from mmadv.commands.testing import run_test
from mmadv.report.measurement import MEASUREMENTS, Measurement, register_measurement

PAGE = Path(__file__).parents[3] / 'docs' / 'extending.md'
NAMED = "test_cfg = dict(type='AttackTestLoop', measurements=[dict(type='{name}')])\n"


@pytest.fixture
def recipe():
    before = dict(MEASUREMENTS)
    code = re.search(r'## A measurement\n.*?```python\n(.*?)```', PAGE.read_text(encoding='utf-8'), re.S)[1]
    exec(compile(code, 'extending.md', 'exec'), {'__name__': 'recipe'})
    yield
    MEASUREMENTS.clear()
    MEASUREMENTS.update(before)


def test_it_is_measured_stored_printed_and_on_the_page(tiny, tmp_path, recipe, capsys):
    config = write_config(tmp_path / 'config.py', tiny / 'data', NAMED.format(name='LargestChange'))
    words = [str(config), str(tiny / 'trained.pth'), '--attack', 'pgd', '--eps', '0', '8/255', '--iterations', '2']
    assert run_test([*words, '--show', '0', '--limit', '2', '--out', str(tmp_path / 'out')]) == 0
    sentence = '8/255: no value changed by more than 8.0 of 255'
    assert sentence in capsys.readouterr().out
    assert sentence in (tmp_path / 'out/report.html').read_text()
    stored = json.loads((tmp_path / 'out/results.json').read_text())
    assert stored['evaluation']['largest_change'] == {'8/255': pytest.approx(8, abs=1e-4)}
    records = (tmp_path / 'out/records.jsonl').read_text().splitlines()[1:]
    assert all('"largest_change":{"8/255":' in record for record in records) and len(records) == 2


def test_an_unknown_one_is_refused(tiny, tmp_path, capsys):
    config = write_config(tmp_path / 'config.py', tiny / 'data', NAMED.format(name='MinimalRadios'))
    assert guarded(run_test, [str(config), str(tiny / 'trained.pth'), '--attack', 'none', '--out', str(tmp_path)]) == 2
    assert "unknown measurement 'MinimalRadios'; did you mean 'MinimalRadius'?" in capsys.readouterr().err


def test_names_are_not_taken_twice():
    class Again(Measurement):
        name = 'minimal_radius'

    with pytest.raises(ValueError, match='the measurement MinimalRadius has the name minimal_radius already'):
        register_measurement(Again)
