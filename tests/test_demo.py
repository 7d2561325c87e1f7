from pathlib import Path

import pytest

import mmadv
from mmadv.commands import demonstrating as demo

SCRIPT = """
print('11/21 04:37 - mmengine - INFO - Iter(train) [ 50/200]  lr: 1e-3  time: 0.3  loss: 0.5984  decode.loss_ce: 0.6')
print('something else')
print('radius  attack    mIoU')
print('------  ------  ------')
print('4/255   SEA      63.25')
"""


def test_the_demo_compares_configs_that_exist():
    assert list(demo.RUNS) == ['standard training', 'adversarial training']
    assert all(Path(mmadv.cfg(config)).is_file() for config in demo.RUNS.values())


def test_a_stage_shows_progress_and_table_and_keeps_everything(tmp_path, capsys):
    script = tmp_path / 'tool.py'
    script.write_text(SCRIPT)
    demo.run_stage('a stage', [str(script)], tmp_path / 'run' / 'tool.log')
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


def test_a_failed_stage_names_its_log(tmp_path):
    script = tmp_path / 'tool.py'
    script.write_text("import sys\nprint('error: no such config')\nsys.exit(2)\n")
    with pytest.raises(
        demo.StageFailed, match=r'error: no such config\nerror: this stage failed; .*tool\.log'
    ) as caught:
        demo.run_stage('a stage', [str(script)], tmp_path / 'tool.log')
    assert caught.value.status == 2
