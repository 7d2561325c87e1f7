"""Checkpoints of a run that is killed while it writes them, and what it is resumed from."""

import builtins
import errno
import os
import re
import shutil
import signal
from pathlib import Path

import mmengine.hooks.checkpoint_hook as stock
import mmengine.hooks.runtime_info_hook
import mmengine.runner.runner
import pytest
import torch
from forks import fork, status_of
from mmengine.evaluator import BaseMetric
from mmengine.fileio import LocalBackend
from mmengine.model import BaseModel
from mmengine.runner import Runner

from mmadv.checkpoints import load_checkpoint_file, use_safe_loading
from mmadv.checkpoints.resuming import newest_checkpoint
from mmadv.engine import AtomicCheckpointHook
from mmadv.errors import UserError

KILLS = 30
ITERATIONS = 14


class Classifier(BaseModel):
    """A network of a few weights, with batch norm and dropout."""

    def __init__(self):
        super().__init__()
        layers = [torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Dropout2d(0.5), torch.nn.Conv2d(4, 2, 1)]
        self.layers = torch.nn.Sequential(*layers)

    def forward(self, images, labels, mode):
        logits = self.layers(torch.stack(images)).mean(dim=(2, 3))
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels))
        return {'loss': loss} if mode == 'loss' else [loss]


class Score(BaseMetric):
    """Minus the mean loss."""

    def process(self, data_batch, data_samples):
        self.results += [-loss.item() for loss in data_samples]

    def compute_metrics(self, results):
        return {'score': sum(results) / len(results)}


def train(folder, iterations=ITERATIONS, resume=True, checkpoint=None, log_level='ERROR'):
    """Trains; every iteration writes a checkpoint, validates, and may write the best weights."""
    use_safe_loading()
    torch.manual_seed(0)
    data = [dict(images=torch.randn(1, 6, 6), labels=n % 2) for n in range(6)]
    loader = dict(dataset=data, collate_fn=dict(type='pseudo_collate'), batch_size=2)
    hook = dict(type=AtomicCheckpointHook, interval=1, by_epoch=False, max_keep_ckpts=1)
    hook.update(save_best='test/score', rule='greater', **(checkpoint or {}))
    runner = Runner(
        Classifier(),
        str(folder),
        train_dataloader=dict(loader, sampler=dict(type='InfiniteSampler', shuffle=True)),
        train_cfg=dict(by_epoch=False, max_iters=iterations, val_interval=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
        val_dataloader=dict(loader, sampler=dict(type='DefaultSampler', shuffle=False)),
        val_cfg={},
        val_evaluator=dict(type=Score, prefix='test'),
        default_hooks=dict(checkpoint=hook),
        custom_hooks=[dict(type='EMAHook', momentum=0.3), dict(type='IterationSeedHook')],
        randomness=dict(seed=0),
        resume=resume,
        experiment_name=f'{Path(folder).name}_{len(os.listdir(Path(folder).parent))}_{os.getpid()}',
        log_level=log_level,
        default_scope='mmseg',
    )
    runner.train()
    return 0


@pytest.fixture(scope='module', autouse=True)
def no_programs():
    """Mmengine starts gcc, git and others to describe the environment, at every start and in every checkpoint."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runner, '_log_env', lambda *_: None)
        for module in (mmengine.runner.runner, mmengine.hooks.runtime_info_hook):
            patch.setattr(module, 'get_git_hash', lambda: '')
        yield


@pytest.fixture(scope='module')
def folder(tmp_path_factory, no_programs):
    """A folder with a run that nobody interrupts."""
    root = tmp_path_factory.mktemp('checkpoints')
    assert status_of(fork(lambda _: train(root / 'whole'), [], root / 'log')) == 0, (root / 'log').read_text()
    return root


@pytest.fixture
def work(folder, tmp_path):
    """A copy of the finished run."""
    shutil.copytree(folder / 'whole', tmp_path / 'work')
    return tmp_path / 'work'


def training_killed_at(step):
    """Returns a training that kills itself at a step of what it does to files."""

    def main(words):
        left = iter(range(step, 0, -1))

        def tick():
            if next(left) == 1:
                os.kill(os.getpid(), signal.SIGKILL)

        def around(function):
            def wrapped(*arguments, **options):
                tick()
                result = function(*arguments, **options)
                tick()
                return result

            return wrapped

        def put(backend, content, path):
            Path(path).write_bytes(content[: len(content) // 2])
            tick()
            Path(path).write_bytes(content)

        def open_and_record(*arguments):
            file = builtins.open(*arguments)  # noqa: SIM115
            tick()
            return file

        LocalBackend.put = put
        stock.open = open_and_record
        os.fsync, os.replace, Path.unlink = map(around, (os.fsync, os.replace, Path.unlink))
        return train(*words)

    return main


def assert_same(actual, expected, keys=('state_dict', 'ema_state_dict')):
    actual, expected = load_checkpoint_file(actual), load_checkpoint_file(expected)
    for key in keys:
        assert actual[key].keys() == expected[key].keys()
        assert all(torch.equal(actual[key][name], value) for name, value in expected[key].items())


def test_killed_while_writing_it_ends_as_if_it_had_not_been(folder):
    log = folder / 'log'
    for kill in range(KILLS):
        # 7 and 23 have no common factor: the kills are spread over all steps of writing.
        step = 1 + 7 * kill % 23
        assert status_of(fork(training_killed_at(step), [folder / 'killed'], log)) == -signal.SIGKILL, log.read_text()
    assert status_of(fork(lambda words: train(*words), [folder / 'killed'], log)) == 0, log.read_text()
    last = f'iter_{ITERATIONS}.pth'
    assert_same(folder / 'killed' / last, folder / 'whole' / last)
    names = {path.name for path in (folder / 'whole').glob('*.pth*')}
    assert {path.name for path in (folder / 'killed').glob('*.pth*')} == names
    (best,) = (name for name in names if name.startswith('best'))
    assert_same(folder / 'killed' / best, folder / 'whole' / best)


def test_log_of_a_validation_holds_its_metrics_alone(tmp_path):
    """Mmengine prints whatever the message hub holds under a name that begins with 'val'."""
    output = tmp_path / 'log'
    assert status_of(fork(lambda _: train(tmp_path / 'work', 2, log_level='INFO'), [], output)) == 0, output.read_text()
    (log,) = (tmp_path / 'work').glob('*/*.log')
    lines = [line for line in log.read_text().splitlines() if 'test/score: ' in line and '(val)' in line]
    assert len(lines) == 2
    for line in lines:
        assert re.findall(r'([\w/]+): ', line.split('[3/3]')[1]) == ['test/score', 'data_time', 'time']


def test_resumes_from_the_newest_checkpoint_that_reads_whole(folder, tmp_path):
    work = tmp_path / 'work'
    train(work, 3, checkpoint=dict(max_keep_ckpts=3))
    whole = (work / 'iter_3.pth').read_bytes()
    path, why = newest_checkpoint(work)
    assert path == str(work / 'iter_3.pth')
    assert 'resuming from' in why and '3 iterations' in why and why.endswith('that reads whole)')
    for damaged in (
        whole[: len(whole) // 2],
        b'',
        whole[:-1000] + bytes(1000),
        whole[:2000] + bytes(2000) + whole[4000:],
    ):
        (work / 'iter_3.pth').write_bytes(damaged)
        path, why = newest_checkpoint(work)
        assert path == str(work / 'iter_2.pth')
        assert why.endswith(f'that reads whole; iter_3.pth does not; last_checkpoint names {work / "iter_3.pth"})')
    train(work)
    assert_same(work / f'iter_{ITERATIONS}.pth', folder / f'whole/iter_{ITERATIONS}.pth')


def test_time_and_iteration_inside_the_files_decide(work):
    """Neither the files' own times, which a copy changes, nor their names."""
    last = work / f'iter_{ITERATIONS}.pth'
    older = load_checkpoint_file(last)
    older['meta'].update(time='20200101_000000', iter=99)
    torch.save(older, work / 'iter_99.pth')
    torch.save({'state_dict': older['state_dict'], 'meta': {'iter': 100}}, work / 'published.pth')
    (work / 'folder.pth').mkdir()
    assert newest_checkpoint(work)[0] == str(last)


@pytest.mark.parametrize('pointer', [None, '', 'work/iter_5.pth', '\0\xff'])
def test_pointer_that_is_missing_or_wrong(work, pointer):
    (work / 'last_checkpoint').unlink()
    if pointer is not None:
        (work / 'last_checkpoint').write_text(pointer)
    path, why = newest_checkpoint(work)
    assert path == str(work / f'iter_{ITERATIONS}.pth')
    words = {None: 'there is no last_checkpoint', '': 'last_checkpoint is empty'}
    assert words.get(pointer, f'last_checkpoint names {pointer}') in why


def test_nothing_to_resume_from(tmp_path):
    for folder in (tmp_path / 'none', tmp_path):
        assert newest_checkpoint(folder) == (
            None,
            f'there is nothing to resume from in {folder}; training begins at iteration 1',
        )
    (tmp_path / 'last_checkpoint').write_text('/elsewhere/iter_5.pth')
    with pytest.raises(UserError, match='last_checkpoint names /elsewhere/iter_5.pth, and .* holds no checkpoint'):
        newest_checkpoint(tmp_path)
    (tmp_path / 'last_checkpoint').write_text('')
    with pytest.raises(UserError, match='last_checkpoint is empty and .* holds no checkpoint'):
        newest_checkpoint(tmp_path)
    (tmp_path / 'iter_5.pth').write_bytes(b'half')
    with pytest.raises(UserError, match=r'no checkpoint in .* reads whole \(iter_5.pth\)'):
        newest_checkpoint(tmp_path)


def test_copied_folder_leaves_the_old_one_alone(tmp_path):
    old, new = tmp_path / 'old', tmp_path / 'new'
    train(old, 3)
    shutil.copytree(old, new)
    before = {path: path.stat().st_mtime_ns for path in old.glob('*.pth')}
    train(new)
    assert {path: path.stat().st_mtime_ns for path in old.glob('*.pth')} == before
    hub = load_checkpoint_file(new / f'iter_{ITERATIONS}.pth')['message_hub']['runtime_info']
    assert Path(hub['best_ckpt']).parent == new and Path(hub['best_ckpt']).is_file()
    assert len(list(new.glob('best_*'))) == 1


def test_full_disk_loses_nothing(work, folder, monkeypatch):
    last = f'iter_{ITERATIONS}.pth'

    def put(backend, content, path):
        Path(path).write_bytes(content[:1000])
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(LocalBackend, 'put', put)
    names = {path.name for path in work.glob('*.pth*')}
    with pytest.raises(UserError, match=r'iter_15.pth cannot be written \(No space left on device\); older ones'):
        train(work, ITERATIONS + 1)
    assert {path.name for path in work.glob('*.pth*')} == names
    assert_same(work / last, folder / 'whole' / last)
