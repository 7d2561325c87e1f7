"""Settings that did nothing, or ended in a traceback: one sentence each, or they work."""

import json

import numpy as np
import pytest
from mmseg.registry import TRANSFORMS
from refusals import attacked, configure, refused

FLIP = "pipeline.insert(1, dict(type='RandomFlip', prob=0.5))\n"
DISTORTED = "pipeline.insert(1, dict(type='PhotoMetricDistortion'))\n"
NOISY = "pipeline.insert(1, dict(type='NoisyForTests'))\n"
TRAIN = ['config.py', '--work-dir', 'work']


@TRANSFORMS.register_module()
class NoisyForTests:
    """Adds noise, and has no name that says so."""

    def __call__(self, results):
        noise = np.random.randint(0, 2, results['img'].shape, dtype=np.uint8)
        return {**results, 'img': results['img'] // 2 + noise}


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['randomness.seed=3'], '--cfg-options randomness.seed has no effect: --seed decides here'),
        (['test_cfg.attack.steps=3'], '--cfg-options test_cfg.attack.steps has no effect: the command line decides'),
        (['load_from=x.pth'], 'the checkpoint on the command line decides here'),
        (['data_root=elsewhere'], "nothing reads it; did you mean 'test_dataloader.dataset.data_root'?"),
        (['model.test_cfg.mod=slide'], "did you mean 'model.test_cfg.mode'?"),
        (['test_dataloder.num_workers=0'], "did you mean 'test_dataloader.num_workers'?"),
    ],
)
def test_options_of_a_test(attack_tool, project, capsys, options, message):
    assert message in refused(attack_tool, attacked('--cfg-options', *options), project, capsys)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['train_cfg.max_iters=0'], 'train_cfg.max_iters must be a positive integer; found 0'),
        (['train_cfg.max_iters=abc'], "train_cfg.max_iters must be a positive integer; found 'abc'"),
        (['train_cfg.max_itres=3'], "did you mean 'train_cfg.max_iters'?"),
        (['optim_wrapper.type=AmpOptimWrapper'], "optim_wrapper.type='AmpOptimWrapper' trains in mixed precision"),
    ],
)
def test_options_of_a_training(train_tool, project, capsys, monkeypatch, options, message):
    monkeypatch.setattr('mmadv.commands.training.get_device', lambda: 'cpu')
    assert message in refused(train_tool, [*TRAIN, '--cfg-options', *options], project, capsys)


def test_mixed_precision_without_a_gpu(train_tool, project, capsys, monkeypatch):
    monkeypatch.setattr('mmadv.commands.training.get_device', lambda: 'cpu')
    sentence = refused(train_tool, [*TRAIN, '--amp'], project, capsys)
    assert '--amp trains in mixed precision, which needs a GPU; leave it out on this machine' in sentence


@pytest.mark.parametrize(
    ('launcher', 'message'),
    [('pytorch', 'RANK, which torchrun sets'), ('slurm', 'SLURM_PROCID, which srun'), ('mpi', 'RANK, which mpirun')],
)
def test_launchers_elsewhere(attack_tool, train_tool, project, capsys, monkeypatch, launcher, message):
    for name in ('RANK', 'WORLD_SIZE', 'SLURM_PROCID', 'OMPI_COMM_WORLD_LOCAL_RANK'):
        monkeypatch.delenv(name, raising=False)
    for tool, argv in ((attack_tool, attacked()), (train_tool, TRAIN)):
        sentence = refused(tool, [*argv, '--launcher', launcher], project, capsys)
        assert f'--launcher {launcher} needs the environment variable' in sentence and message in sentence


def test_seeds_out_of_range(attack_tool, certify_tool, project, capsys):
    for seed in (str(2**32), '1.5', 'x'):
        sentence = refused(attack_tool, attacked('--seed', seed), project, capsys)
        assert f"--seed must be an integer in [0, 4294967295]; found '{seed}'" in sentence
    argv = ['config.py', 'trained.pth', '--sigma', '0.1', '--seed', str(2**32), '--out', 'out']
    assert '--seed must be an integer' in refused(certify_tool, argv, project, capsys)


def test_attack_file_that_calls_a_function(attack_tool, project, capsys):
    text = "from mmadv.attacks import sea\nattack = sea(radius='4/255', iterations=3)\n"
    (project / 'attack.py').write_text(text)
    sentence = refused(attack_tool, attacked(attack='attack.py', eps=(), iterations=None), project, capsys)
    assert 'calls what it imports, which a config cannot; write a dict with its name as type' in sentence


@pytest.mark.parametrize(
    ('extra', 'message'),
    [
        (FLIP, 'test_dataloader.dataset: RandomFlip in its pipeline draws random numbers'),
        (DISTORTED, 'test_dataloader.dataset: PhotoMetricDistortion in its pipeline draws random numbers'),
        (NOISY, 'test_dataloader.dataset: two reads of its first image differ'),
    ],
)
def test_random_test_pipelines(attack_tool, certify_tool, project, capsys, extra, message):
    configure(project, extra)
    assert message in refused(attack_tool, attacked(), project, capsys)
    argv = ['config.py', 'trained.pth', '--sigma', '0.1', '--out', 'out']
    assert message in refused(certify_tool, argv, project, capsys)


def test_random_transforms_that_draw_nothing_and_no_workers(attack_tool, project, capsys):
    transforms = "pipeline.insert(1, dict(type='RandomFlip', prob=0.0))\n"
    workers = 'test_dataloader.update(num_workers=2, persistent_workers=True, prefetch_factor=2)\n'
    configure(project, transforms + workers)
    argv = ['config.py', 'trained.pth', '--attack', 'none', '--out', 'out', '--show', '0']
    assert attack_tool([*argv, '--cfg-options', 'test_dataloader.num_workers=0']) == 0, capsys.readouterr().err
    assert json.loads((project / 'out' / 'results.json').read_text())['evaluation']['clean']['mIoU'] > 0.5


def test_training_without_workers(train_tool, project, capsys):
    configure(project, 'train_dataloader.update(num_workers=2, persistent_workers=True)\n')
    short = ['train_cfg.max_iters=1', 'train_cfg.val_interval=1', 'train_dataloader.num_workers=0']
    assert train_tool([*TRAIN, '--cfg-options', *short]) == 0, capsys.readouterr().err
