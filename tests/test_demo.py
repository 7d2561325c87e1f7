import json
from pathlib import Path

import pytest
from stored_results import content

import mmadv
from mmadv.commands import demonstrating as demo
from mmadv.report import RunResults

SCRIPT = """
print('11/21 04:37 - mmengine - INFO - Iter(train) [ 50/200]  lr: 1e-3  time: 0.3  loss: 0.5984  decode.loss_ce: 0.6')
print('something else')
print('radius  attack    mIoU')
print('------  ------  ------')
print('4/255   SEA      63.25')
"""


def test_the_demo_compares_configs_that_exist():
    assert list(demo.RUNS) == ['standard training', 'Fast Newton', 'PGD with 2 steps']
    assert all(Path(mmadv.cfg(config)).is_file() for config in [demo.START, *demo.RUNS.values()])


def test_the_time_of_a_step_is_the_median_without_loading_of_the_last_training(tmp_path):
    for name, times in (('20260101_000000', [9, 9]), ('20260102_000000', [0.7, 0.5, 2.5])):
        folder = tmp_path / name / 'vis_data'
        folder.mkdir(parents=True)
        lines = [{'loss': 1, 'time': time, 'data_time': 0.1} for time in times] + [{'mIoU': 1, 'time': 30}]
        (folder / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)))
    assert demo.seconds_per_step(tmp_path) == pytest.approx(0.6)


def test_every_method_starts_from_the_same_model_and_is_compared_with_the_first(tmp_path, monkeypatch, capsys):
    commands = []

    def stage(title, command, log):
        commands.append(command)
        folder = Path(command[command.index('--work-dir' if 'train' in command else '--out') + 1])
        folder.mkdir(parents=True)
        if 'train' in command:
            (folder / 'last_checkpoint').write_text(str(folder / 'iter_200.pth'))
            (folder / 'now' / 'vis_data').mkdir(parents=True)
            line = {'loss': 1, 'time': 1 + 0.5 * len(commands), 'data_time': 0}
            (folder / 'now' / 'vis_data' / 'scalars.json').write_text(json.dumps(line))

    drawn = {}
    run = RunResults.from_json(content())
    monkeypatch.setattr(demo, 'run_stage', stage)
    monkeypatch.setattr(demo.RunResults, 'load', lambda folder: run)
    monkeypatch.setattr(demo, 'write_report', lambda results, path, title: path)
    monkeypatch.setattr(demo, 'draw_curve', lambda runs, path: drawn.update(runs))
    assert demo.run_demo(['--out', str(tmp_path)]) == 0
    start = f'load_from={tmp_path}/pspnet_clean_digits/training/iter_200.pth'
    trainings = [command for command in commands if 'train' in command]
    assert [start in command for command in trainings] == [False, True, True, True]
    tested = [command[command.index('--attack') - 1] for command in commands if 'test' in command]
    folders = ['standard_training', 'fast_newton', 'pgd_with_2_steps']
    assert tested == [f'{tmp_path}/{folder}/training/iter_200.pth' for folder in folders]
    # Trainings are the commands 2, 4 and 6: 2, 3 and 4 s.
    names = ['standard training (1.0x the time)', 'Fast Newton (1.5x the time)', 'PGD with 2 steps (2.0x the time)']
    assert list(drawn) == names
    shown = capsys.readouterr().out.splitlines()
    assert 'PGD with 2 steps (2.0x the time)   90.00  50.00  25.00' in shown


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
