import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = """
print('11/21 04:37 - mmengine - INFO - Iter(train) [ 50/200]  lr: 1e-3  time: 0.3  loss: 0.5984  decode.loss_ce: 0.6')
print('something else')
print('radius  attack    mIoU')
print('------  ------  ------')
print('4/255   SEA      63.25')
"""


@pytest.fixture(scope='module')
def demo():
    specification = importlib.util.spec_from_file_location('mmadv_demo', ROOT / 'tools' / 'demo.py')
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_demo_compares_configs_that_exist(demo):
    assert list(demo.RUNS) == ['standard training', 'adversarial training']
    assert all((ROOT / config).is_file() for config in demo.RUNS.values())


def test_a_stage_shows_progress_and_table_and_keeps_everything(demo, tmp_path, capsys):
    script = tmp_path / 'tool.py'
    script.write_text(SCRIPT)
    demo.run_stage('a stage', [str(script)], tmp_path / 'run')
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == '[demo] a stage'
    assert shown[2:6] == [
        '       iteration 50 of 200, loss 0.5984',
        '       radius  attack    mIoU',
        '       ------  ------  ------',
        '       4/255   SEA      63.25',
    ]
    assert shown[6].startswith('       took ')
    assert len((tmp_path / 'run' / 'tool.log').read_text().splitlines()) == 5


def test_a_failed_stage_names_its_log(demo, tmp_path):
    script = tmp_path / 'tool.py'
    script.write_text("import sys\nprint('error: no such config')\nsys.exit(2)\n")
    with pytest.raises(
        demo.StageFailed, match=r'error: no such config\nerror: this stage failed; .*tool\.log'
    ) as caught:
        demo.run_stage('a stage', [str(script)], tmp_path)
    assert caught.value.status == 2
