"""SegmentorAdapter predicts what the segmentor predicts, and differentiates what it predicts."""

import copy
import re

import pytest
import torch
from mmengine.config import ConfigDict
from mmseg.models.data_preprocessor import SegDataPreProcessor
from mmseg.models.segmentors import EncoderDecoder, SegTTAModel
from mmseg.registry import MODELS

from mmadv.attacks import PGD, Linf
from mmadv.errors import UserError
from mmadv.models import SegmentorAdapter, TrainingAdapter, geometry, stack_images, stack_labels, unwrap

NAMES = ['fcn', 'fcn_aligned', 'psp', 'uper', 'sigmoid', 'ocr', 'segmenter']
SLIDE = dict(mode='slide', crop_size=(24, 24), stride=(16, 16))


def predictions(model, batch):
    with torch.no_grad():
        samples = model.test_step(copy.deepcopy(batch))
    return torch.stack([sample.pred_sem_seg.data[0] for sample in samples]).long()


def adapted(model, batch):
    adapter = SegmentorAdapter(model, batch['data_samples'])
    with torch.no_grad():
        return adapter(stack_images(batch['inputs']))


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('mode', ['whole', 'slide'])
def test_arg_max_is_the_prediction(build_model, make_batch, name, mode):
    model = build_model(name, **(SLIDE if mode == 'slide' else {}))
    batch = make_batch([(40, 56)] * 2)
    expected = predictions(model, batch)
    logits = adapted(model, batch)
    assert logits.shape == (2, 2 if name == 'sigmoid' else 5, 40, 56)
    assert len(expected.unique()) > 1
    assert torch.equal(logits.argmax(1), expected)


@pytest.mark.parametrize('name', ['fcn', 'fcn_aligned', 'sigmoid', 'ocr'])
@pytest.mark.parametrize('mode', ['whole', 'slide'])
@pytest.mark.parametrize(
    ('padding', 'size', 'meta'),
    [
        ({'size_divisor': 32}, (37, 45), {}),
        ({'size': (64, 80)}, (37, 45), {}),
        (None, (37, 45), {'ori_shape': (61, 83)}),
        ({'size_divisor': 16}, (37, 45), {'ori_shape': (61, 83), 'flip': True, 'flip_direction': 'horizontal'}),
        (None, (40, 48), {'flip': True, 'flip_direction': 'vertical', 'pad_shape': (40, 48)}),
        (None, (40, 48), {'flip': False, 'flip_direction': None}),
    ],
)
def test_padding_flip_and_resize(build_model, make_batch, name, mode, padding, size, meta):
    model = build_model(name, dict(test_cfg=padding), **(SLIDE if mode == 'slide' else {}))
    batch = make_batch([size] * 2)
    for sample in batch['data_samples']:
        sample.set_metainfo(meta)
    expected = predictions(model, batch)
    logits = adapted(model, batch)
    assert logits.shape[2:] == meta.get('ori_shape', size)
    assert torch.equal(logits.argmax(1), expected)


@pytest.mark.parametrize(
    'preprocessor',
    [
        dict(bgr_to_rgb=False, rgb_to_bgr=True),
        dict(bgr_to_rgb=False),
        dict(mean=None, std=None),
        dict(mean=[7], std=[50.0]),
    ],
)
def test_normalisation_is_mmsegs_bit_for_bit(build_model, make_batch, preprocessor):
    model = build_model('fcn', preprocessor)
    batch = make_batch([(24, 32)] * 2)
    expected = model.data_preprocessor(copy.deepcopy(batch), False)['inputs']
    adapter = SegmentorAdapter(model, batch['data_samples'])
    assert torch.equal(adapter.normalised(stack_images(batch['inputs'])), expected)


def test_logits_of_part_of_the_batch(build_model, make_batch):
    model = build_model('uper', dict(test_cfg={'size_divisor': 32}))
    batch = make_batch([(37, 45)] * 3)
    adapter = SegmentorAdapter(model, batch['data_samples'])
    images = stack_images(batch['inputs'])
    with torch.no_grad():
        torch.testing.assert_close(adapter(images[1:2]), adapter(images)[1:2], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('kind', ['whole', 'slide', 'train'])
def test_gradient_agrees_with_finite_differences(build_model, make_batch, name, kind):
    model = build_model(name, dict(test_cfg={'size_divisor': 16}), **(SLIDE if kind == 'slide' else {})).double()
    batch = make_batch([(27, 30)])
    batch['data_samples'][0].set_metainfo(dict(ori_shape=(33, 35)))
    adapter = TrainingAdapter(model, (32, 48)) if kind == 'train' else SegmentorAdapter(model, batch['data_samples'])
    images = stack_images(batch['inputs']).double().requires_grad_()
    generator = torch.Generator().manual_seed(1)
    logits = adapter(images)
    assert logits.dtype == torch.float64
    weights = torch.randn(logits.shape, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((logits * weights).sum(), images)
    direction = torch.randn(images.shape, generator=generator, dtype=torch.float64)
    step = 1e-7
    with torch.no_grad():
        above, below = ((adapter(images + sign * step * direction) * weights).sum() for sign in (1, -1))
    assert float((above - below) / (2 * step)) == pytest.approx(float((gradient * direction).sum()), rel=1e-4)


def test_training_adapter_leaves_padding_out(build_model, make_batch):
    model = build_model('fcn')
    images = stack_images(make_batch([(27, 30)] * 2)['inputs'])
    with torch.no_grad():
        logits = TrainingAdapter(model, (32, 48))(images)
        padded = torch.nn.functional.pad(
            SegmentorAdapter(model, make_batch([(27, 30)])['data_samples']).normalised(images), (0, 18, 0, 5)
        )
        expected = model.encode_decode(padded, [dict(img_shape=padded.shape[2:])] * 2)
    assert torch.equal(logits, expected[:, :, :27, :30])


def test_sigmoid_logits_are_zero_and_the_distance_to_the_threshold(build_model, make_batch):
    model = build_model('sigmoid')
    batch = make_batch([(24, 24)])
    with torch.no_grad():
        data = model.data_preprocessor(copy.deepcopy(batch), False)
        raw = model.inference(data['inputs'], [sample.metainfo for sample in data['data_samples']])
        logits = adapted(model, batch)
    assert not logits[:, 0].any()
    torch.testing.assert_close(logits[:, 1].sigmoid(), torch.sigmoid(raw[:, 0] - torch.tensor(0.4).logit()))


@pytest.mark.parametrize('checkpointing', ['with_cp', 'mmengine'])
def test_attacks_models_with_activation_checkpointing(build_model, make_batch, checkpointing):
    from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing

    batch = make_batch([(24, 24)])
    images, labels = stack_images(batch['inputs']), stack_labels(batch['data_samples'])
    attack = PGD(threat=Linf(radius='4/255'), steps=2, step_size='2/255')
    expected = attack(SegmentorAdapter(build_model('fcn'), batch['data_samples']), images, labels, seeds=[3]).images
    model = build_model('fcn')
    blocks = list(model.backbone.layer1)
    if checkpointing == 'with_cp':
        for block in blocks:
            block.with_cp = True
    else:
        turn_on_activation_checkpointing(model, ['backbone.layer1', 'decode_head'])
    forward = model.backbone.layer1.forward
    actual = attack(SegmentorAdapter(model, batch['data_samples']), images, labels, seeds=[3]).images
    assert torch.equal(actual, expected)
    assert model.backbone.layer1.forward == forward
    assert all(block.with_cp == (checkpointing == 'with_cp') for block in blocks)


def test_the_segmentors_metadata_stay_as_they_were(build_model, make_batch):
    model = build_model('fcn', **SLIDE)
    batch = make_batch([(40, 40)])
    before = copy.deepcopy(batch['data_samples'][0].metainfo)
    adapted(model, batch)
    assert batch['data_samples'][0].metainfo == before
    assert set(batch['data_samples'][0].keys()) == {'gt_sem_seg'}


def test_unwraps_test_time_augmentation_and_compilation(build_model, make_batch):
    model = build_model('fcn')
    assert unwrap(SegTTAModel(module=model)) is model
    assert unwrap(torch.compile(model)) is model
    batch = make_batch([(24, 24)])
    assert torch.equal(adapted(SegTTAModel(module=model), batch), adapted(model, batch))


def test_geometry_tells_sizes_and_flips_apart(make_batch):
    same, other = make_batch([(24, 24), (24, 24)])['data_samples'], make_batch([(24, 32)])['data_samples'][0]
    assert geometry(same[0]) == geometry(same[1]) != geometry(other)
    same[1].set_metainfo(dict(flip=True, flip_direction='horizontal'))
    assert geometry(same[0]) != geometry(same[1])


class OtherPreprocessor(SegDataPreProcessor):
    def forward(self, data, training=False):
        return super().forward(data, training)


class OtherPredict(EncoderDecoder):
    def predict(self, inputs, data_samples=None):
        return super().predict(inputs, data_samples)


def test_refuses_what_it_cannot_repeat(build_model, make_batch):
    samples = make_batch([(24, 24)])['data_samples']
    with pytest.raises(UserError, match='must be a segmentor of mmseg; found Conv2d'):
        SegmentorAdapter(torch.nn.Conv2d(3, 3, 1), samples)
    model = build_model('fcn')
    model.data_preprocessor = OtherPreprocessor(size_divisor=1)
    with pytest.raises(UserError, match='must be a SegDataPreProcessor; found OtherPreprocessor'):
        SegmentorAdapter(model, samples)
    base = MODELS.build(dict(type='BaseDataPreprocessor', _scope_='mmengine'))
    model.data_preprocessor = base
    with pytest.raises(UserError, match='found BaseDataPreprocessor'):
        TrainingAdapter(model, (24, 24))
    model = build_model('fcn')
    model.__class__ = OtherPredict
    with pytest.raises(UserError, match='OtherPredict predicts in a way of its own'):
        SegmentorAdapter(model, samples)
    with pytest.raises(UserError, match='samples of one geometry; found 2'):
        SegmentorAdapter(build_model('fcn'), make_batch([(24, 24), (24, 32)])['data_samples'])


def test_names_labels_that_do_not_fit(build_model, make_batch):
    model = build_model('fcn')
    batch = make_batch([(24, 24)] * 2, labels=(20, 24))
    adapter = SegmentorAdapter(model, batch['data_samples'])
    with pytest.raises(UserError, match=re.escape('/data/0.png: the label map is 20x24 and the image 24x24')):
        adapter.check_labels(stack_labels(batch['data_samples']), batch['data_samples'])
    batch = make_batch([(24, 24)] * 2)
    batch['data_samples'][1].gt_sem_seg.data[0, :2, 0] = torch.tensor([9, 5])
    adapter = SegmentorAdapter(model, batch['data_samples'])
    with pytest.raises(UserError, match='/data/1.png: labels must be below 5, .* or 255, .* found 5, 9;'):
        adapter.check_labels(stack_labels(batch['data_samples']), batch['data_samples'])
    batch['data_samples'][1].gt_sem_seg.data[0, :2, 0] = 255
    adapter.check_labels(stack_labels(batch['data_samples']), batch['data_samples'])


def test_bytes_survive_the_unit_system(make_batch):
    every = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    assert torch.equal(stack_images([every]) * 255, every[None].float())


@pytest.mark.parametrize('value', [-1.0, 255.5, float('nan')])
def test_names_images_outside_the_range(make_batch, value):
    batch = make_batch([(8, 8)] * 2)
    batch['inputs'][1] = batch['inputs'][1].float()
    batch['inputs'][1][0, 0, 0] = value
    with pytest.raises(UserError, match=r'/data/1.png: pixels must be in \[0, 255\]; found values from'):
        stack_images(batch['inputs'], batch['data_samples'])


def test_names_images_of_different_sizes(make_batch):
    batch = make_batch([(8, 8), (8, 16)])
    with pytest.raises(UserError, match='the images of a batch must have one size; .*/data/1.png'):
        stack_images(batch['inputs'], batch['data_samples'])
    with pytest.raises(UserError, match='the label maps of a batch must have one size'):
        stack_labels(batch['data_samples'])
    del batch['data_samples'][0].gt_sem_seg
    with pytest.raises(UserError, match='/data/0.png: there are no labels to attack'):
        stack_labels(batch['data_samples'])


def test_head_with_its_own_threshold_must_make_sense(build_model, make_batch):
    model = build_model('sigmoid')
    model.decode_head.threshold = 1
    with pytest.raises(UserError, match='threshold must lie between 0 and 1; found 1'):
        adapted(model, make_batch([(24, 24)]))


def test_config_dict_metadata_do_not_matter(build_model, make_batch):
    model = build_model('fcn', dict(test_cfg=ConfigDict(size=(48, 48))))
    batch = make_batch([(24, 30)])
    assert torch.equal(adapted(model, batch).argmax(1), predictions(model, batch))
