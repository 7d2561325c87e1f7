"""The segmentors of DDC-AT's authors: conversion, loading, and parity with logits and losses of their own code."""

import numpy as np
import published_files
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import register_all_modules
from torch import nn

import mmadv
from mmadv.checkpoints.families import SOURCES
from mmadv.checkpoints.loading import load_weights
from mmadv.errors import UserError
from mmadv.models.backbones.conversion import convert, convert_file

register_all_modules()
SOURCE = 'ddc-at'
NETWORKS = ('pspnet', 'deeplabv3')
SIZE = (49, 33)


@pytest.fixture(autouse=True)
def mmseg_scope():
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


def build(leaf):
    """Returns a config's model without values, for its sizes."""
    config = Config.fromfile(mmadv.cfg(leaf)).model
    del config.backbone['init_cfg']
    with torch.device('meta'):
        return MODELS.build(config)


def empty(leaf):
    """Returns a config's model with values of any kind, which a load replaces: drawing random ones takes seconds."""
    return build(leaf).to_empty(device='cpu')


@pytest.fixture(scope='module', params=NETWORKS)
def published(request):
    """A network, and the weights of its published file, key-made."""
    shapes = published_files.ddcat_shapes(request.param)
    return request.param, {key: published_files.key_made(key, shape) for key, shape in shapes.items()}


def test_logits_are_those_of_the_published_code(published):
    name, weights = published
    model = empty(f'clean/{name}_r50v1c_voc.py').double().eval()
    model.load_state_dict(convert(weights, SOURCES[SOURCE]).report.weights, strict=True)
    images = torch.from_numpy(np.random.RandomState(0).rand(2, 3, *SIZE))[:1]
    with torch.no_grad():
        logits = model.encode_decode(images, [dict(img_shape=SIZE, ori_shape=SIZE, pad_shape=SIZE)])
    expected = published_files.stored_logits(f'ddcat_{name}_voc')
    torch.testing.assert_close(logits[:, :, ::4, ::4], expected, rtol=0, atol=1e-9)


# DeepLabv3's branches have 1x1 convolutions there, and mmseg's 3x3 ones here.
@pytest.mark.parametrize('published', ['pspnet'], indirect=True)
def test_losses_of_a_training_step_are_those_of_the_published_code(published):
    _, weights = published
    step, model = published_files.stored_step(), empty('ddc_at/pspnet_r50v1c_voc.py').double()
    weights = weights | {f'{branch}.4.bias': torch.from_numpy(step[branch]) for branch in ('cls1', 'cls2', 'mask1')}
    model.load_state_dict(convert(weights, SOURCES[SOURCE]).report.weights, strict=True)
    for branch, prefix in (('second', 'cls2'), ('mask', 'mask1')):
        parts = {'0.': 'block.conv.', '1.': 'block.bn.', '4.': 'conv_seg.'}
        own = {parts[key[:2]] + key[2:]: weights[f'{prefix}.{key}'] for key in keys_of(weights, prefix)}
        model.branches[branch].load_state_dict(own, strict=True)
    for module in model.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    random = np.random.RandomState(0)
    clean, other = random.rand(2, 3, *SIZE), random.rand(2, 3, *SIZE)
    labels = torch.from_numpy(random.randint(0, 21, (2, *SIZE)))
    labels[:, :5] = 255
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label[None])) for label in labels]
    images = torch.from_numpy(np.concatenate([clean, (other[::-1] + clean) / 2]))
    MessageHub.get_instance('test_ddcat_files')
    model.train()
    with torch.no_grad():
        losses = model.loss(images, samples)
    main = losses['decode.loss_ce'] + losses['mask.loss_ce']
    torch.testing.assert_close(main, torch.tensor(step['main_loss']), rtol=0, atol=1e-9)
    torch.testing.assert_close(losses['aux.loss_ce'], 0.4 * torch.tensor(step['aux_loss']), rtol=0, atol=1e-9)
    assert round(float(losses['mask.boundary']) * SIZE[0] * SIZE[1]) == step['boundary'] > 0


def keys_of(weights, prefix):
    return [key.removeprefix(f'{prefix}.') for key in weights if key.startswith(f'{prefix}.')]


@pytest.mark.parametrize('rival', [False, True], ids=['ddcat', 'rival'])
@pytest.mark.parametrize('classes', [21, 19])
@pytest.mark.parametrize('network', NETWORKS)
def test_architecture_and_classes_are_recognised_and_every_key_accounted_for(network, classes, rival):
    weights = published_files.ddcat_weights(network, classes, rival=rival)
    conversion = convert(weights, SOURCES[SOURCE])
    assert (conversion.architecture, conversion.num_classes) == (f'{network}_resnet50_v1c', classes)
    assert conversion.input_convention == 'imagenet'
    report = conversion.report
    assert report.gaps == 0 and not report.fresh
    dropped = [key for key in weights if key.split('.')[1] in ('cls2', 'mask1')]
    assert list(report.dropped) == dropped and len(dropped) == (0 if rival else 16)
    assert len(report.weights) + len(dropped) == len(weights)
    data = {21: 'voc', 19: 'cityscapes'}[classes]
    own = build(f'clean/{network}_r50v1c_{data}.py').state_dict()
    assert {key: value.shape for key, value in report.weights.items()} == {
        key: value.shape for key, value in own.items()
    }


def test_file_with_its_optimizer_is_converted_and_loads_in_the_config_of_its_training(tmp_path):
    """As it is published, with the epoch and an optimizer beside the weights."""
    weights = {key: torch.full(value.shape, 0.5) for key, value in published_files.ddcat_weights('deeplabv3').items()}
    weights['module.cls1.0.weight'] = torch.arange(1280).float().view(1, 1280, 1, 1).expand(256, -1, -1, -1)
    torch.save({'epoch': 50, 'state_dict': weights, 'optimizer': {'state': {}}}, tmp_path / 'train_epoch_50.pth')
    conversion = convert_file(tmp_path / 'train_epoch_50.pth', tmp_path / 'out.pth', source_name=SOURCE)
    summary = conversion.summary()
    assert summary.startswith('deeplabv3_resnet50_v1c with 21 classes: ')
    assert 'dropped (mask head of DDC-AT, which training alone uses): module.mask1.0.weight' in summary
    model = empty('ddc_at/deeplabv3_r50v1c_voc.py')
    load_weights(model, tmp_path / 'out.pth')
    kernel = model.decode_head.bottleneck.conv.weight
    # mmseg has the pooled features first, theirs last.
    assert torch.equal(kernel[7, :, 1, 1], torch.arange(1280).roll(256).float())
    assert kernel.count_nonzero() == 256 * 1279


def test_heads_with_different_numbers_of_classes_are_a_gap():
    weights = published_files.ddcat_weights('pspnet')
    weights['module.aux_cls1.4.weight'] = torch.zeros(()).expand(19, 256, 1, 1)
    with pytest.raises(
        UserError,
        match=r'do not fit pspnet_resnet50_v1c: 1 of another size, '
        r'auxiliary_head.conv_seg.weight \(19, 256, 1, 1\) in the file, \(21, 256, 1, 1\) in the network',
    ):
        convert(weights, SOURCES[SOURCE], architecture='pspnet_resnet50_v1c')


def test_backbone_that_the_authors_start_from_fits_theirs():
    conversion = convert(published_files.semseg_backbone(), SOURCES['semseg'])
    assert (conversion.architecture, conversion.input_convention) == ('resnet50_v1c', 'imagenet')
    assert list(conversion.report.dropped) == ['fc.weight', 'fc.bias'] and not conversion.report.gaps
    own = build('clean/pspnet_r50v1c_voc.py').backbone.state_dict()
    assert {key: value.shape for key, value in conversion.report.weights.items()} == {
        key: value.shape for key, value in own.items()
    }
