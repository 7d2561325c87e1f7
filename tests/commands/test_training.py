"""One training at a time in a work folder, whoever was killed there."""

import os
import signal

import pytest
from forks import start, status_of
from stopped_commands import RIGHT_ARGUMENTS, outcome

from mmadv.report.output_folder import LOCK, locked


def test_a_work_folder_in_use_is_refused(stopped, capsys):
    with locked('work'):
        sentence = outcome('train', RIGHT_ARGUMENTS['train'], capsys, stopped)
    folder = stopped / 'work'
    assert sentence.startswith(f'error: output folder {folder} is in use by another run (process {os.getpid()} on ')
    assert sentence.endswith('wait for its end, stop it, or give another --work-dir')
    assert outcome('train', RIGHT_ARGUMENTS['train'], capsys, stopped) == 'accepted'
    assert not folder.exists()


def test_a_killed_training_leaves_nothing_that_blocks(stopped, capsys):
    def work():
        with locked('work'):
            os.kill(os.getpid(), signal.SIGKILL)

    assert status_of(start(work)) == -signal.SIGKILL
    assert (stopped / 'work' / LOCK).exists()
    assert outcome('train', RIGHT_ARGUMENTS['train'], capsys, stopped) in ('accepted', '<something was written>')
    assert not (stopped / 'work').exists()


@pytest.mark.parametrize(('launcher', 'rank', 'owner'), [('pytorch', '0', True), ('pytorch', '1', False)])
def test_the_first_process_of_a_run_locks_for_all(launcher, rank, owner, stopped, capsys, monkeypatch):
    for name, value in {'RANK': rank, 'WORLD_SIZE': '2', 'MASTER_ADDR': 'localhost', 'MASTER_PORT': '1'}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr('mmadv.commands.training.join_processes_on_cpu', lambda config: None)
    with locked('work'):
        got = outcome('train', [*RIGHT_ARGUMENTS['train'], '--launcher', launcher], capsys, stopped)
    assert ('in use' in got) == owner and (got == 'accepted') != owner
