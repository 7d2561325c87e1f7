"""One run at a time in an output folder, which replaces what earlier runs wrote and nothing else."""

import json
import os
import signal
import time

import pytest
from forks import start, status_of

from mmadv.errors import UserError
from mmadv.report.output_folder import LOCK, MANIFEST, check_unlocked, check_writable, locked, manifest, staged


def write(folder, last='results.json', **files):
    """Writes a run of these files, by their names with '__' for '/' and '_' for '.'."""
    with staged(folder, last=last) as stage:
        for name, text in files.items():
            path = stage / name.replace('__', '/').replace('_', '.')
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def content(folder):
    """Returns the files of a folder by name, hidden ones too; the manifest is left out."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob('*') if not path.is_dir()}
    return {name: path.read_text() for name, path in files.items() if name != MANIFEST}


def test_a_folder_appears_with_its_files_or_not_at_all(tmp_path):
    def fail():
        with staged(tmp_path / 'deep' / 'out') as stage:
            (stage / 'results.json').write_text('{}')
            raise RuntimeError('stop')

    with pytest.raises(RuntimeError, match='stop'):
        fail()
    assert not (tmp_path / 'deep').exists()
    write(tmp_path / 'deep/out', results_json='{}')
    assert content(tmp_path / 'deep/out') == {'results.json': '{}'}
    check_writable(tmp_path / 'deep' / 'out')
    check_writable(tmp_path / 'not' / 'yet')
    assert not (tmp_path / 'not').exists()


def test_a_run_deletes_what_the_manifest_of_an_earlier_one_names_and_nothing_else(tmp_path):
    out = tmp_path / 'out'
    write(out, results_json='1', pictures__0_png='1', adversarial__4__0_png='1', gradients_png='1')
    assert manifest(out) == {'results.json': {'results.json', 'pictures/0.png', 'adversarial/4/0.png', 'gradients.png'}}
    (out / 'pictures/mine.png').write_text('mine')
    (out / 'mine').mkdir()
    (out / 'mine/universal').write_text('mine')
    write(out, results_json='2', pictures__1_png='2')
    assert content(out) == {
        'results.json': '2',
        'pictures/1.png': '2',
        'pictures/mine.png': 'mine',
        'mine/universal': 'mine',
    }
    assert not (out / 'adversarial').exists()


def test_commands_that_share_a_folder_leave_the_results_of_each_other(tmp_path):
    out = tmp_path / 'out'
    write(out, results_json='1', pictures__0_png='1', pictures__1_png='1')
    write(out, last='comparison.md', comparison_md='2', paired_md='2', pictures__1_png='2')
    write(out, last='comparison.md', comparison_md='3')
    assert content(out) == {'results.json': '1', 'pictures/0.png': '1', 'comparison.md': '3'}
    with staged(out) as stage:
        (stage / 'results.json').write_text('4')
        (stage / 'pictures').mkdir()
    assert content(out) == {'results.json': '4', 'comparison.md': '3'} and (out / 'pictures').is_dir()


def test_files_of_the_user_in_the_place_of_new_ones_are_renamed(tmp_path, capsys):
    out = tmp_path / 'out'
    (out / 'adversarial').mkdir(parents=True)
    for name in ('adversarial/a.png', 'gradients.png', 'pictures', 'results.json', 'results.json.old'):
        (out / name).write_text('mine')
    for number in ('1', '2'):
        write(out, results_json=number, pictures__0_png=number, gradients_png=number, adversarial__b_png=number)
        assert content(out) == {
            'results.json': number,
            'results.json.old': 'mine',
            'results.json.old2': 'mine',
            'pictures/0.png': number,
            'pictures.old': 'mine',
            'gradients.png': number,
            'gradients.png.old': 'mine',
            'adversarial/a.png': 'mine',
            'adversarial/b.png': number,
        }
    notes = capsys.readouterr().err.splitlines()
    assert notes[0] == f'note: {out / "gradients.png"} is not from an earlier run; it is renamed to gradients.png.old'
    assert len(notes) == 3


def test_links_in_the_place_of_folders(tmp_path):
    out, elsewhere = tmp_path / 'out', tmp_path / 'elsewhere'
    out.mkdir()
    elsewhere.mkdir()
    (elsewhere / 'mine.png').write_text('mine')
    (out / 'pictures').symlink_to(elsewhere)
    (out / 'adversarial').symlink_to(tmp_path / 'gone')
    for number in ('1', '2'):
        write(out, results_json=number, **{f'pictures__{number}_png': number, 'adversarial__0_png': number})
    assert (out / 'pictures').is_symlink() and content(elsewhere) == {'mine.png': 'mine', '2.png': '2'}
    assert (out / 'adversarial/0.png').read_text() == '2' and (out / 'adversarial.old').is_symlink()


@pytest.mark.parametrize(
    'text',
    ['', '[1]', '{"schema": "mmadv/manifest", "runs": 3}', 'nested', 'outside'],
    ids=lambda text: text or 'empty',
)
def test_a_manifest_that_is_damaged_or_names_files_outside_deletes_nothing(tmp_path, text):
    out, mine = tmp_path / 'out', tmp_path / 'mine.txt'
    out.mkdir()
    mine.write_text('mine')
    if text == 'nested':
        text = '[' * 100000
    if text == 'outside':
        text = json.dumps(
            {'schema': 'mmadv/manifest', 'runs': {'results.json': ['../mine.txt', str(mine), '', '.', 5]}}
        )
    (out / MANIFEST).write_text(text)
    write(out, results_json='1')
    assert mine.read_text() == 'mine'
    assert (out / 'results.json').read_text() == '1' and 'results.json' in manifest(out)['results.json']


def test_stages_of_killed_runs_are_deleted_by_the_next_one(tmp_path):
    out = tmp_path / 'out'

    def work():
        with locked(out), staged(out) as stage:
            (stage / 'results.json').write_text('half')
            os.kill(os.getpid(), signal.SIGKILL)

    assert status_of(start(work)) == -signal.SIGKILL
    assert any(name.startswith('.mmadv-stage-') for name in content(out))
    with locked(out):
        write(out, results_json='1')
    assert content(out) == {'results.json': '1'}


def test_one_run_at_a_time_and_a_killed_one_leaves_no_lock(tmp_path):
    out = tmp_path / 'deep' / 'out'
    ready, report = os.pipe()

    def work():
        with locked(out):
            loader = start(lambda: time.sleep(30))  # it outlives its parent, and must not hold the lock
            os.write(report, str(loader).encode())
            time.sleep(30)

    process = start(work)
    os.close(report)
    loader = int(os.read(ready, 20))
    os.close(ready)
    words = rf'{out} is in use by another run \(process {process} on \S+\); wait for its end, stop it, or give another'
    with pytest.raises(UserError, match=words), locked(out):
        pass
    with pytest.raises(UserError, match=words):
        check_unlocked(out)
    os.kill(process, signal.SIGKILL)
    status_of(process)
    assert (out / LOCK).exists()
    check_unlocked(out)
    os.kill(loader, signal.SIGKILL)
    with locked(out):
        with pytest.raises(UserError, match='is in use by another run'), locked(out):
            pass
        assert (out / LOCK).exists()
    assert not (out / LOCK).exists() and out.exists()  # the killed run made the folder


def test_the_folder_of_a_lock_goes_with_it_unless_something_is_in_it(tmp_path):
    with locked(tmp_path / 'deep/out'):
        assert (tmp_path / 'deep/out').is_dir()
    assert not (tmp_path / 'deep').exists()
    with locked(tmp_path / 'deep/out'):
        write(tmp_path / 'deep/out', results_json='1')
    assert content(tmp_path / 'deep/out') == {'results.json': '1'}
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='cannot be written'), locked(tmp_path / 'file' / 'out'):
        pass
