"""The robust segmentors of SEA's authors: conversion, loading and parity with the logits of their own code."""

import os

import numpy as np
import public_files
import published_files
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import register_all_modules

import mmadv
from mmadv.checkpoints.families import SOURCES
from mmadv.checkpoints.loading import load_weights
from mmadv.errors import UserError
from mmadv.models.backbones.conversion import convert, convert_file

register_all_modules()
SOURCE = 'robust-segmentation'


@pytest.fixture(autouse=True)
def mmseg_scope():
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


@pytest.fixture(autouse=True, scope='module')
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def content(name, num_classes=None, prefix=''):
    """Returns a published file's content, of zeros that take no memory."""
    shapes = published_files.published_shapes(name, num_classes)
    return {f'{prefix}{key}': torch.zeros(()).expand(shape) for key, shape in shapes.items()}


def build(name):
    config = Config.fromfile(mmadv.cfg(f'published/{name}_sea_protocol.py'))
    return MODELS.build(config.model)


@pytest.fixture(scope='module', params=['upernet_convnext_t_voc', 'segmenter_vit_s_ade20k'])
def converted(request, tmp_path_factory):
    """The name of a model, its published file with key-made weights, and that file converted."""
    folder = tmp_path_factory.mktemp('published')
    shapes = published_files.published_shapes(request.param)
    torch.save({key: published_files.key_made(key, shape) for key, shape in shapes.items()}, folder / 'public.pth')
    convert_file(folder / 'public.pth', folder / 'converted.pth', source_name=SOURCE)
    yield request.param, folder / 'public.pth', folder / 'converted.pth'
    for file in folder.iterdir():  # up to half a gigabyte each
        file.unlink()


def logits_of(model, name):
    size, stride = ((96, 64), 4) if name.startswith('upernet') else ((512, 512), 64)
    images = torch.from_numpy(np.random.RandomState(0).rand(1, 3, *size))
    # The data preprocessor takes images in [0, 255]; the network, after it, images in [0, 1].
    batch = dict(inputs=[255 * images[0].flip(0)], data_samples=[SegDataSample()])
    torch.testing.assert_close(model.data_preprocessor(batch)['inputs'].double(), images, rtol=0, atol=1e-6)
    with torch.no_grad():
        logits = model.encode_decode(images, [dict(img_shape=size, ori_shape=size, pad_shape=size)])
    return logits[:, :, ::stride, ::stride]


def test_logits_are_those_of_the_published_code(converted):
    name, _, file = converted
    model = build(name).double().eval()
    load_weights(model, file)
    torch.testing.assert_close(logits_of(model, name), published_files.stored_logits(name), rtol=0, atol=1e-9)


def test_a_published_file_initialises_a_segmentor_without_conversion(converted):
    name, public, file = converted
    if name.startswith('upernet'):
        return  # the same path with three times the weights
    config = Config.fromfile(mmadv.cfg(f'published/{name}_sea_protocol.py')).model
    config.init_cfg = dict(type='RobustPretrained', checkpoint=str(public), source=SOURCE)
    model = MODELS.build(config).double()
    model.init_weights()
    weights = torch.load(file, weights_only=True)['state_dict']
    assert model.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())


ALL = {
    'upernet_convnext_t_voc': ('upernet_convnext_t_convstem', None, 21),
    'upernet_convnext_s_voc': ('upernet_convnext_s_convstem', None, 21),
    'upernet_convnext_t_ade20k': ('upernet_convnext_t_convstem', 151, 151),
    'upernet_convnext_s_ade20k': ('upernet_convnext_s_convstem', 151, 151),
    'segmenter_vit_s_ade20k': ('segmenter_vit_s', None, 151),
}


@pytest.mark.parametrize('prefix', ['', 'module.'])
@pytest.mark.parametrize('name', ALL)
def test_architecture_and_classes_are_recognised_and_every_key_accounted_for(name, prefix):
    architecture, changed, classes = ALL[name]
    stored = name if 'segmenter' in name else name.replace('ade20k', 'voc')
    weights = content(stored, changed, prefix)
    conversion = convert(weights, SOURCES[SOURCE])
    assert (conversion.architecture, conversion.num_classes) == (architecture, classes)
    assert conversion.input_convention == 'unit'
    report = conversion.report
    assert report.gaps == 0 and not report.fresh
    head = [f'{prefix}encoder.head.weight', f'{prefix}encoder.head.bias'] if 'segmenter' in name else []
    assert list(report.dropped) == head
    assert len(report.weights) + len(head) == len(weights)
    assert conversion.summary().startswith(f'{architecture} with {classes} classes: {len(report.weights)} weights')


@pytest.mark.parametrize('name', ['upernet_convnext_s_ade20k', 'segmenter_vit_s_ade20k'])
def test_every_weight_of_the_published_config_is_in_the_file(name):
    changed = None if 'segmenter' in name else 151
    weights = convert(content(name.replace('s_ade20k', 's_voc') if changed else name, changed), SOURCES[SOURCE])
    own = {key: value.shape for key, value in build(name).state_dict().items()}
    assert {key: value.shape for key, value in weights.report.weights.items()} == own


def test_number_of_classes_that_nobody_published_is_taken():
    assert convert(content('segmenter_vit_s_ade20k', 19), SOURCES[SOURCE]).num_classes == 19


def test_heads_with_different_numbers_of_classes_are_a_gap():
    weights = content('upernet_convnext_t_voc')
    weights['auxiliary_head.classifier.weight'] = torch.zeros(()).expand(151, 256, 1, 1)
    with pytest.raises(
        UserError,
        match=r'the nearest architecture, upernet_convnext_t_convstem: 1 of another size, '
        r'auxiliary_head.conv_seg.weight \(151, 256, 1, 1\) in the file, \(21, 256, 1, 1\) in the network',
    ):
        convert(weights, SOURCES[SOURCE])


def test_converted_file_in_a_config_with_other_classes_names_both(converted):
    name, _, file = converted
    if name != 'upernet_convnext_t_voc':
        return
    sizes = r'\(21, 512, 1, 1\) in the file, \(151, 512, 1, 1\) in the model'
    with pytest.raises(UserError, match=f'4 of another size, first decode_head.conv_seg.weight: {sizes}'):
        load_weights(build('upernet_convnext_t_ade20k'), file)


@pytest.mark.parametrize(
    ('weights', 'source', 'likely'),
    [
        (lambda: content('upernet_convnext_s_voc', prefix='module.'), 'revisiting-at', "'robust-segmentation'"),
        (lambda: content('segmenter_vit_s_ade20k'), 'timm', "'robust-segmentation'"),
        (lambda: content('upernet_convnext_t_voc'), 'ddc-at', "'robust-segmentation'"),
        (lambda: published_files.ddcat_weights('pspnet'), SOURCE, "'ddc-at'"),
        (lambda: published_files.ddcat_weights('deeplabv3', rival=True), 'semseg', "'ddc-at'"),
        (lambda: published_files.semseg_backbone(), 'ddc-at', "'semseg'"),
        (lambda: public_files.resnet(18).state_dict(), SOURCE, "'timm' or 'torchvision'"),
        (lambda: public_files.madry(public_files.resnet(18))['model'], SOURCE, "'salman' or 'madry'"),
        (
            lambda: public_files.revisiting_at(public_files.timm_model('vit_s_convstem'), 'module.base_model.'),
            SOURCE,
            "'revisiting-at'",
        ),
    ],
)
def test_file_of_another_family_names_the_likeliest_source(weights, source, likely, tmp_path):
    torch.save(weights(), tmp_path / 'public.pth')
    with pytest.raises(UserError) as caught:
        convert_file(tmp_path / 'public.pth', tmp_path / 'out.pth', source_name=source)
    assert str(caught.value) == (
        f"{tmp_path / 'public.pth'} is not a file of the source '{source}': its keys and sizes are those of the source "
        f'{likely}; name that source'
    )
    assert os.listdir(tmp_path) == ['public.pth']


def test_truncated_file_is_one_sentence(converted, tmp_path):
    _, public, _ = converted
    with open(public, 'rb') as file:
        (tmp_path / 'short.pth').write_bytes(file.read(1_000_000))
    with pytest.raises(UserError, match='short.pth is not a checkpoint, or was cut short; copy or download it again'):
        convert_file(tmp_path / 'short.pth', tmp_path / 'out.pth', source_name=SOURCE)
    assert os.listdir(tmp_path) == ['short.pth']
