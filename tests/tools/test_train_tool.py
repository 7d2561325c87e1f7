"""tools/train.py: training, adversarial training, resuming."""

import errno
import re

import pytest
import torch
from mmengine.runner import Runner
from mmengine.visualization import LocalVisBackend
from refusals import configure, refused

from mmadv.checkpoints import load_checkpoint_file

AT = """
model['data_preprocessor'].update(
    type='AdvSegDataPreProcessor',
    attack=dict(type='PGD', threat=dict(type='Linf', radius='4/255'), steps=2, step_size=0.01),
)
"""
SHORT = ['--cfg-options', 'train_cfg.max_iters=4', 'train_cfg.val_interval=4', 'default_hooks.checkpoint.interval=2']


def weights(path):
    return load_checkpoint_file(path)['state_dict']


@pytest.fixture
def config_of(train_tool, monkeypatch):
    """A function that returns the config a command trains with."""

    class Stop(Exception):
        pass

    def config_of(argv):
        built = []

        def from_cfg(config):
            built.append(config)
            raise Stop

        monkeypatch.setattr(Runner, 'from_cfg', from_cfg)
        with pytest.raises(Stop):
            train_tool(argv)
        return built[0]

    return config_of


def test_trains_and_resumes(train_tool, project, capsys):
    assert train_tool(['config.py', '--work-dir', 'work', *SHORT]) == 0
    assert (project / 'work' / 'iter_4.pth').is_file()
    longer = ['--cfg-options', 'train_cfg.max_iters=6', *SHORT[2:]]
    for resume in (['--resume'], ['--resume', 'auto'], ['--resume', 'work/iter_4.pth']):
        (project / 'work' / 'iter_6.pth').unlink(missing_ok=True)
        (project / 'work' / 'last_checkpoint').write_text(str(project / 'work' / 'iter_4.pth'))
        assert train_tool(['config.py', '--work-dir', 'work', *resume, *longer]) == 0
        assert load_checkpoint_file('work/iter_6.pth')['meta']['iter'] == 6
        said = 'resuming from work/iter_4.pth (4 iterations, saved at '
        assert (said in capsys.readouterr().out) == (resume[-1] != 'work/iter_4.pth')
    before, after = weights('work/iter_4.pth'), weights('work/iter_6.pth')
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_start_from_weights_that_fit_says_how_many(project, config_of, capsys):
    state = load_checkpoint_file('trained.pth')['state_dict']
    total = sum(not key.endswith('num_batches_tracked') for key in state)
    torch.save({**state, 'decode_head.conv_seg.weight': state['decode_head.conv_seg.weight'][:1]}, 'other_head.pth')
    config_of(['config.py', '--work-dir', 'work', '--cfg-options', 'load_from=other_head.pth'])
    said = f'{total - 1} of {total} weights of EncoderDecoder are in other_head.pth; 1 of another size, first decode'
    assert said in capsys.readouterr().out
    start = "dict(type='Pretrained', checkpoint='trained.pth', prefix='backbone')"
    configure(project, f"model['backbone']['init_cfg'] = {start}\n")
    config_of(['config.py', '--work-dir', 'work'])
    assert 'are in trained.pth\n' in capsys.readouterr().out


@pytest.mark.parametrize('start', ['load_from', 'pretrained'])
def test_start_from_weights_that_do_not_fit_is_refused(train_tool, project, capsys, start):
    content = load_checkpoint_file('trained.pth')
    torch.save({f'encoder.{key}': value for key, value in content['state_dict'].items()}, 'foreign.pth')
    extra = "load_from = 'foreign.pth'\n"
    if start == 'pretrained':
        extra = "model['backbone']['init_cfg'] = dict(type='Pretrained', checkpoint='foreign.pth')\n"
    configure(project, extra)
    sentence = refused(train_tool, ['config.py', '--work-dir', 'work'], project, capsys)
    assert re.search('0 of .* weights of .* are in foreign.pth; .* missing, first', sentence)
    assert 'a key of the file is encoder.' in sentence and 'fewer than 50% fit' in sentence


def test_config_with_the_stock_hook_gets_the_one_that_survives_a_kill(project, config_of):
    configure(project, "custom_hooks = [dict(type='CheckpointHook', interval=1, by_epoch=False)]\n")
    config = config_of(['config.py', '--work-dir', 'work'])
    assert config.default_hooks.checkpoint == dict(type='AtomicCheckpointHook', by_epoch=False, interval=60)
    assert config.custom_hooks == [dict(type='AtomicCheckpointHook', interval=1, by_epoch=False)]
    assert config.default_hooks.iteration_seed == dict(type='IterationSeedHook')


def test_settings_of_workers_that_there_are_none_of(project, config_of):
    configure(project, "train_dataloader['persistent_workers'] = val_dataloader['persistent_workers'] = True\n")
    config = config_of(['config.py', '--work-dir', 'work'])
    assert 'persistent_workers' not in config.train_dataloader
    assert 'persistent_workers' not in config.val_dataloader


def test_resuming_where_nothing_is_or_nothing_reads(train_tool, project, capsys):
    """It begins at iteration 1 in words, never silently and never from another folder."""
    assert train_tool(['config.py', '--work-dir', 'new', '--resume', *SHORT]) == 0
    assert 'there is nothing to resume from in new; training begins at iteration 1' in capsys.readouterr().out
    for path in (project / 'new').glob('*.pth'):
        path.write_bytes(path.read_bytes()[:2000])
    sentence = refused(train_tool, ['config.py', '--work-dir', 'new', '--resume', *SHORT], project, capsys)
    assert 'no checkpoint in new reads whole (iter_2.pth, iter_4.pth)' in sentence
    for path in (project / 'new').glob('*.pth'):
        path.unlink()
    sentence = refused(train_tool, ['config.py', '--work-dir', 'new', '--resume', *SHORT], project, capsys)
    assert f'new/last_checkpoint names {project}/new/iter_4.pth, and new holds no checkpoint' in sentence


def test_resuming_where_nothing_is_starts_from_the_weights_of_the_config(project, config_of, capsys):
    """MMEngine forgets ``load_from`` when it is told to resume; the run would start from random weights."""
    configure(project, "load_from = 'trained.pth'\n")
    config = config_of(['config.py', '--work-dir', 'new', '--resume'])
    assert config.load_from == 'trained.pth' and not config.resume
    assert 'begins at iteration 1, from the weights of load_from=trained.pth' in capsys.readouterr().out


def test_full_disk_is_one_sentence(train_tool, project, capsys, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, 'No space left on device', 'work/scalars.json')

    monkeypatch.setattr(LocalVisBackend, 'add_scalars', full)
    configure(project, "default_hooks['logger'] = dict(type='LoggerHook', interval=1)\n")
    assert train_tool(['config.py', '--work-dir', 'work', *SHORT]) == 2
    errors = capsys.readouterr().err
    assert errors.splitlines()[-1].startswith('error: the disk is full (No space left on device: work/scalars.json)')


def test_adversarial_training_changes_the_weights_but_not_their_names(train_tool, project):
    assert train_tool(['config.py', '--work-dir', 'clean', *SHORT]) == 0
    configure(project, AT)
    assert train_tool(['config.py', '--work-dir', 'adversarial', *SHORT]) == 0
    clean, adversarial = weights('clean/iter_4.pth'), weights('adversarial/iter_4.pth')
    assert list(clean) == list(adversarial)
    assert any(not torch.equal(clean[name], adversarial[name]) for name in clean)


def test_default_work_folder(train_tool, project):
    assert train_tool(['config.py', *SHORT]) == 0
    assert (project / 'work_dirs' / 'config' / 'iter_4.pth').is_file()


def test_amp_sets_the_optimiser_wrapper(project, config_of, monkeypatch):
    monkeypatch.setattr('mmadv.commands.training.get_device', lambda: 'cuda')
    config = config_of(['config.py', '--amp', '--work-dir', 'work'])
    assert config.optim_wrapper.type == 'AmpOptimWrapper'
    assert config.optim_wrapper.loss_scale == 'dynamic'
    assert config.launcher == 'none'


WATCHED = """
load_from = 'trained.pth'
train_cfg.update(max_iters=3, val_interval=1)
val_cfg = dict(
    type='AttackValLoop', limit=2, attack=dict(type='PGD', threat=dict(type='Linf', radius='8/255'), steps=2)
)
default_hooks['checkpoint'].update(save_best='robust/mIoU')
custom_hooks = [
    dict(
        type='CatastrophicOverfittingHook', attack=dict(type='FGSM', threat=dict(type='Linf', radius='8/255')),
        training_attack=dict(type='GaussianNoise', sigma=1e-4), interval=1, images=2, threshold=1e-9, action='rollback',
    )
]
"""


def test_rolls_back_and_resumes_from_best_checkpoints_that_are_loaded_safely(train_tool, project):
    """Validation scores are numpy numbers, and a checkpoint that holds them must load without unpickling at will."""
    configure(project, AT + WATCHED)
    assert train_tool(['config.py', '--work-dir', 'work']) == 0
    (best,) = (project / 'work').glob('best_robust_mIoU_iter_*.pth')
    (log,) = (project / 'work').glob('*/*.log')
    # MMEngine's logger writes a warning once, so that the same words twice would hide the second time.
    lines = re.findall(r'rolled back at iteration (\d+) to the weights of (.*)', log.read_text())
    assert lines == [('2', str(best)), ('3', str(best))]
    assert train_tool(['config.py', '--work-dir', 'work', '--resume', '--cfg-options', 'train_cfg.max_iters=4']) == 0
