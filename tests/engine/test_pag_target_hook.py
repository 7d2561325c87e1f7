"""The hook that makes the targets: its bank, the cache of it, and what it refuses."""

import json

import numpy as np
import pytest
import tiny_project
import torch
from forks import run_together
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.registry import DATASETS, MODELS

from mmadv.checkpoints.loading import load_checkpoint_file, load_weights
from mmadv.commands.training import run_train
from mmadv.engine import PAGTargetHook
from mmadv.engine.pag_bank import cached_bank, raw_pictures, shared_bank
from mmadv.engine.pag_target_hook import BANK_FILE
from mmadv.errors import UserError
from mmadv.models import PAGEncoderDecoder
from mmadv.models.pag_targets import collect_bank
from mmadv.robustness import ClassBank

# Norms without batch statistics, so that training can start from scratch.
GROUP_NORM = """
model['backbone']['norm_cfg'] = model['decode_head']['norm_cfg'] = dict(type='GN', num_groups=4)
"""
EXTRA = (
    GROUP_NORM
    + """
custom_imports = dict(imports=['mmadv'])
custom_hooks = [dict(type='PAGTargetHook', target=dict({target}){options})]
model.update(type='PAGEncoderDecoder', pag=dict(weight=0.2{pag}))
train_cfg.update(max_iters={iterations}, val_interval=100)
val_cfg = val_dataloader = val_evaluator = None
default_hooks = dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1))
"""
)


@pytest.fixture
def project(tmp_path):
    tiny_project.write_dataset(tmp_path / 'data')

    def train(target, *, iterations=1, options='', pag='', arguments=()):
        extra = EXTRA.format(target=target, iterations=iterations, options=options, pag=pag)
        config = tiny_project.write_config(tmp_path / 'config.py', tmp_path / 'data', extra)
        run_train([str(config), '--work-dir', str(tmp_path / 'work'), *arguments])
        return tmp_path / 'work'

    train.root = tmp_path
    return train


def test_training_makes_a_bank_once_and_a_stock_checkpoint(project, monkeypatch):
    losses = []
    loss = PAGEncoderDecoder.loss

    def recorded(self, inputs, data_samples):
        losses.append(loss(self, inputs, data_samples))
        return losses[-1]

    monkeypatch.setattr(PAGEncoderDecoder, 'loss', recorded)
    work = project("type='NearestNeighbour', per_class=3")
    assert all(0 < float(step['loss_pag'].detach()) < 0.2 * 3 * 2 for step in losses) and len(losses) == 1
    stored = torch.load(work / BANK_FILE, weights_only=True)
    assert stored['examples'].shape == (3, 3, 3, 32, 40) and stored['counts'].tolist() == [3, 3, 3]
    changed = {**stored, 'counts': torch.tensor([1, 2, 3])}  # a bank that is read again shows by this
    torch.save(changed, work / BANK_FILE)
    project("type='NearestNeighbour', per_class=3", iterations=2, arguments=['--resume'])
    assert torch.load(work / BANK_FILE, weights_only=True)['counts'].tolist() == [1, 2, 3]
    project("type='NearestNeighbour', per_class=2", iterations=3, arguments=['--resume'])
    assert torch.load(work / BANK_FILE, weights_only=True)['counts'].tolist() == [2, 2, 2]
    assert len(losses) == 3
    stock_config = tiny_project.write_config(project.root / 'stock.py', project.root / 'data', GROUP_NORM)
    stock = Config.fromfile(stock_config).model
    with DefaultScope.overwrite_default_scope('mmseg'):
        load_weights(MODELS.build(stock), work / 'iter_3.pth')
    assert 'examples' not in ' '.join(load_checkpoint_file(work / 'iter_3.pth')['state_dict'])


def test_batch_norms_keep_the_statistics_that_are_loaded_and_are_refused_without(project):
    batch_norm = "\nmodel['backbone']['norm_cfg'] = model['decode_head']['norm_cfg'] = dict(type='BN')\n"
    root = project.root
    settings = EXTRA.format(target="type='OneImage'", iterations=1, options='', pag='') + batch_norm
    argv = [str(tiny_project.write_config(root / 'config.py', root / 'data', settings))]
    argv += ['--work-dir', str(root / 'work')]
    with pytest.raises(UserError, match=r'were never trained \(first: backbone.bn1\); set load_from'):
        run_train(argv)
    assert not list((root / 'work').glob('*.pth'))
    stock = Config.fromfile(tiny_project.write_config(root / 'stock.py', root / 'data')).model
    with DefaultScope.overwrite_default_scope('mmseg'):
        before = MODELS.build(stock).state_dict()
    for key, value in before.items():
        if key.endswith('running_var'):
            value.fill_(2.0)
    torch.save(dict(state_dict=before), root / 'start.pth')
    run_train([*argv, '--cfg-options', f'load_from={root / "start.pth"}'])
    after = load_checkpoint_file(root / 'work/iter_1.pth')['state_dict']
    assert all(torch.equal(before[key], after[key]) for key in before if 'running' in key)
    assert not torch.equal(before['backbone.bn1.weight'], after['backbone.bn1.weight'])


def test_two_processes_train_with_one_bank_and_log_what_one_does(project, monkeypatch, unused_port):
    root = project.root
    extra = EXTRA.format(target="type='NearestNeighbour', per_class=2", iterations=1, options='', pag='')
    extra += "default_hooks.update(logger=dict(type='LoggerHook', interval=1))\n"
    extra += "vis_backends = [dict(type='LocalVisBackend')]\n"
    extra += "visualizer = dict(type='SegLocalVisualizer', vis_backends=vis_backends, name='visualizer')\n"
    config = tiny_project.write_config(root / 'config.py', root / 'data', extra)
    give = PAGEncoderDecoder.set_pag_target

    def recorded(self, target):
        torch.save(target.examples, root / f'bank{torch.distributed.get_rank()}.pth')
        give(self, target)

    monkeypatch.setattr(PAGEncoderDecoder, 'set_pag_target', recorded)
    monkeypatch.setattr('mmadv.engine.pag_target_hook.collect_bank', in_the_main_process_only)

    def train(argv):
        run_train(argv)
        return 0

    run_together(train, [config, '--work-dir', root / 'work'], 2, unused_port, root)
    first, second = (torch.load(root / f'bank{rank}.pth') for rank in (0, 1))
    assert first.shape == (3, 2, 3, 32, 40) and first.any()
    assert torch.equal(first, second) and torch.equal(first, torch.load(root / 'work' / BANK_FILE)['examples'])
    (scalars,) = (root / 'work').glob('*/vis_data/scalars.json')
    logged = json.loads(scalars.read_text().splitlines()[0])
    assert -1 <= logged['pag_cosine'] <= 1 and 0 < logged['pag_high_frequency'] < 1 and logged['loss_pag'] > 0


def in_the_main_process_only(*arguments):
    assert torch.distributed.get_rank() == 0
    return collect_bank(*arguments)


def test_a_bank_that_cannot_be_made_ends_every_process(tmp_path, unused_port):
    def make():
        raise OSError('no space left') if torch.distributed.get_rank() == 0 else AssertionError('not here')

    def share(_):
        with pytest.raises(UserError if torch.distributed.get_rank() else OSError, match='no space left'):
            shared_bank(make)
        return 0

    run_together(share, [], 2, unused_port, tmp_path)


def test_a_bank_is_kept_under_its_key_and_made_anew_where_its_file_is_damaged(tmp_path):
    banks = [ClassBank(torch.full((2, 1, 3, 4, 4), n, dtype=torch.uint8), torch.tensor([1, 1])) for n in range(4)]
    path, left = tmp_path / 'folder' / 'bank.pth', list(reversed(banks))

    def cached(key):
        return int(cached_bank(path, key, left.pop).examples.max())

    assert [cached('a'), cached('a'), cached('b')] == [0, 0, 1]
    path.write_bytes(path.read_bytes()[:100])
    assert [cached('b'), cached('b')] == [2, 2]
    assert [file.name for file in path.parent.iterdir()] == ['bank.pth']


def test_a_teacher_of_the_same_classes_is_followed(project):
    work = project("type='OneImage'")
    config, checkpoint = str(project.root / 'teacher.py'), str(work / 'iter_1.pth')
    teacher = f"type='Distillation', config={config!r}, checkpoint={checkpoint!r}"
    (project.root / 'teacher.py').write_text((project.root / 'config.py').read_text())
    project(teacher)
    smaller = (project.root / 'teacher.py').read_text() + "\nmodel['decode_head'].update(num_classes=2)\n"
    (project.root / 'teacher.py').write_text(smaller)
    with pytest.raises(UserError, match='do not fit'):
        project(teacher)


def test_regions_are_the_default_and_their_bank_and_teacher_serve_training(project):
    work = project("type='RegionExemplars', per_class=3", iterations=2)
    assert PAGTargetHook().target == {'type': 'RegionExemplars'} and PAGTargetHook().per_class == 32
    bank = torch.load(work / BANK_FILE, weights_only=True)
    assert bank['examples'].shape == (3, 3, 4, 64, 64) and bank['counts'].tolist() == [3, 3, 3]
    assert all((bank['examples'][k, :, -1] == k).any() for k in range(3))
    config, checkpoint = str(project.root / 'teacher.py'), str(work / 'iter_2.pth')
    (project.root / 'teacher.py').write_text((project.root / 'config.py').read_text())
    teacher = f"type='RegionDistillation', config={config!r}, checkpoint={checkpoint!r}, per_class=2, regions=1"
    project(teacher, options=', size=(16, 24)')
    assert torch.load(work / BANK_FILE, weights_only=True)['examples'].shape == (3, 2, 4, 16, 24)


def test_pictures_come_as_they_are_loaded_in_an_order_of_the_seed(project):
    path = tiny_project.write_config(project.root / 'config.py', project.root / 'data')
    with DefaultScope.overwrite_default_scope('mmseg'):
        dataset = DATASETS.build(Config.fromfile(path).train_dataloader.dataset)
    pictures = list(raw_pictures(dataset, seed=0))
    assert len(pictures) == 6 and len(list(raw_pictures(dataset, seed=0, limit=2))) == 2
    for image, labels in pictures:
        assert image.dtype == np.uint8 and image.shape[:2] == labels.shape

    def order(seed):
        return [float(image.mean()) for image, _ in raw_pictures(dataset, seed=seed)]

    assert order(0) == order(0) != order(1) and sorted(order(0)) == sorted(order(1))


@pytest.mark.parametrize(
    ('target', 'changes', 'match'),
    [
        ("type='NearestNeighbour', per_class=7", {}, 'per_class 7 is more than the 6 training images'),
        ("type='OneImage'", {'options': ', max_images=0'}, 'PAGTargetHook.max_images must be an integer at least 1'),
        ("type='ClassMean', per_class=2", {'options': ', size=(8, 8)'}, 'make a bank of the size'),
    ],
)
def test_data_that_do_not_suffice_are_named(target, changes, match, project):
    with pytest.raises(UserError, match=match):
        project(target, **changes)


@pytest.mark.parametrize(
    ('target', 'match'),
    [
        (dict(type='Nearest'), "unknown target 'Nearest'; did you mean 'NearestNeighbour'"),
        (dict(type='OneImage', per_class=2), "OneImage has no setting 'per_class'"),
        (dict(type='ClassMean', per_class=0), 'per_class must be a positive integer; found 0'),
        (dict(type='NearestClusterMean', clusters=2.5), 'clusters must be a positive integer; found 2.5'),
        (dict(type='NearestNeighbour', clusters=2), "NearestNeighbour has no setting 'clusters'"),
        (dict(type='Distillation', config='a.py'), 'needs the checkpoint of its teacher'),
        (dict(type='RegionDistillation', checkpoint='a.pth'), 'RegionDistillation needs the config of its teacher'),
        (dict(type='RegionExemplars', regions=0), 'regions must be a positive integer; found 0'),
        (dict(type='RegionExemplar'), "unknown target 'RegionExemplar'; did you mean 'RegionExemplars'"),
    ],
)
def test_settings_that_make_no_sense_are_named(target, match):
    with pytest.raises(UserError, match=match):
        PAGTargetHook(target)
