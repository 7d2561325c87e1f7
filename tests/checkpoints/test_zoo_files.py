"""Files in the form of mmseg's model zoo load, of old and new releases, with everything beside the weights."""

import collections
import io
import zipfile

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from torch import nn

from mmadv.checkpoints import load_checkpoint_file, load_weights

CLASSES, PALETTE = ('road', 'sidewalk', 'building'), [[128, 64, 128], [244, 35, 232], [70, 70, 70]]
CONFIG = "norm_cfg = dict(type='SyncBN', requires_grad=True)\nmodel = dict(type='EncoderDecoder')\n"


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(collections.OrderedDict(conv=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm2d(4)))


def optimizer_state(model):
    """Returns the state of an optimizer whose learning rates are numpy scalars, as schedulers leave them."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    model(torch.rand(2, 3, 4, 4)).sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    state['param_groups'][0].update(lr=np.float64(0.0001), initial_lr=np.float32(0.01), step=np.int64(80000))
    return state


def old_release(model):
    """Mmseg 0.x: the meta of mmcv's runner, classes in capitals."""
    meta = dict(
        env_info='sys.platform: linux\nPyTorch: 1.6.0',
        config=CONFIG,
        mmseg_version='0.5.0+0ee90fc',
        mmcv_version='1.0.5',
        CLASSES=CLASSES,
        PALETTE=PALETTE,
        hook_msgs={},
        time='Thu Jul 16 12:00:00 2020',
        epoch=108,
        iter=40000,
    )
    return dict(meta=meta, state_dict=model.state_dict(), optimizer=optimizer_state(model))


def new_release(model):
    """Mmseg 1.x: the meta of mmengine's runner, a message hub of log histories, schedulers."""
    history = HistoryBuffer()
    for value in (1.5, np.float64(1.25), 1.0):
        history.update(value)
    info = dict(iter=160000, epoch=0, max_iters=160000, cfg=CONFIG, train_dataset_meta=None, loop_stage='train')
    dataset = dict(classes=list(CLASSES), palette=PALETTE, label_map=None, reduce_zero_label=False)
    meta = dict(
        cfg=CONFIG,
        seed=np.int64(1742435),
        experiment_name='pspnet_20230101_000000',
        time='20230101_120000',
        mmengine_version='0.7.1',
        dataset_meta={**dataset, 'classes_of_scores': np.array([0.5, 1.0]), 'names': np.array(['a', 'bc'])},
        epoch=0,
        iter=160000,
    )
    hub = dict(log_scalars={'train/loss': history}, runtime_info=info, resumed_keys={'train/loss': True})
    schedulers = [dict(by_epoch=False, begin=0, end=160000, last_step=160000, _last_value=[np.float64(1e-4)])]
    weights = dict(state_dict=model.state_dict(), optimizer=optimizer_state(model))
    return dict(meta=meta, message_hub=hub, param_schedulers=schedulers, **weights)


def published(checkpoint, path, *, zipped):
    """Writes a checkpoint as older numpy and torch did: numpy's functions have the module name of its version 1."""
    whole = io.BytesIO()
    torch.save(checkpoint, whole, _use_new_zipfile_serialization=zipped)
    old, new = b'numpy._core.multiarray', b'numpy.core.multiarray'
    if not zipped:
        assert old in whole.getvalue()
        path.write_bytes(whole.getvalue().replace(old, new))
        return path
    with zipfile.ZipFile(whole) as before, zipfile.ZipFile(path, 'w', zipfile.ZIP_STORED) as after:
        for name in before.namelist():
            content = before.read(name)
            if name.endswith('data.pkl'):
                assert old in content
                content = content.replace(old, new)
            after.writestr(name, content)
    return path


@pytest.mark.parametrize('zipped', [False, True], ids=['legacy', 'zip'])
@pytest.mark.parametrize('release', [old_release, new_release])
def test_loads_into_its_model(tmp_path, release, zipped):
    trained = network(0)
    path = published(release(trained), tmp_path / 'zoo.pth', zipped=zipped)
    model = network(1)
    load_weights(model, path)
    for key, value in trained.state_dict().items():
        assert torch.equal(model.state_dict()[key], value)


@pytest.mark.parametrize('zipped', [False, True], ids=['legacy', 'zip'])
def test_what_lies_beside_the_weights_can_be_read(tmp_path, zipped):
    old = load_checkpoint_file(published(old_release(network(0)), tmp_path / 'old.pth', zipped=zipped))
    assert old['meta']['CLASSES'] == CLASSES and old['meta']['PALETTE'] == PALETTE
    group = old['optimizer']['param_groups'][0]
    assert (group['lr'], group['step']) == (0.0001, 80000)
    new = load_checkpoint_file(published(new_release(network(0)), tmp_path / 'new.pth', zipped=zipped))
    assert new['meta']['dataset_meta']['classes'] == list(CLASSES)
    assert new['meta']['dataset_meta']['names'].tolist() == ['a', 'bc']
    assert new['message_hub']['log_scalars']['train/loss']._log_history.tolist() == [1.5, 1.25, 1.0]


def test_weights_published_without_optimizer_load(tmp_path):
    trained = network(0)
    whole = old_release(trained)
    del whole['optimizer']
    torch.save(whole, tmp_path / 'zoo.pth', _use_new_zipfile_serialization=False)
    model = network(1)
    load_weights(model, tmp_path / 'zoo.pth')
    assert torch.equal(model.conv.weight, trained.conv.weight)
