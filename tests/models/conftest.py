"""Tiny segmentors and batches for the tests of the mmseg side."""

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

import mmadv  # noqa: F401  (registers the components)

NORM = dict(type='BN', requires_grad=True)
RESNET = dict(
    type='ResNetV1c',
    depth=18,
    base_channels=8,
    stem_channels=8,
    num_stages=4,
    out_indices=(0, 1, 2, 3),
    style='pytorch',
    strides=(1, 2, 1, 1),
    dilations=(1, 1, 2, 2),
    norm_cfg=NORM,
    norm_eval=False,
    contract_dilation=True,
)
LOSS = dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)


def head(kind, **changes):
    return {
        **dict(type=kind, in_channels=64, in_index=3, channels=8, num_classes=5, norm_cfg=NORM, dropout_ratio=0),
        **dict(align_corners=False, loss_decode=LOSS),
        **changes,
    }


def model_config(name):
    """Returns the config of a tiny stock segmentor, without data preprocessor."""
    single = {
        'fcn': head('FCNHead', num_convs=1),
        'fcn_aligned': head('FCNHead', num_convs=1, align_corners=True),
        'psp': head('PSPHead', pool_scales=(1, 2)),
        'aspp': head('ASPPHead', dilations=(1, 2)),
        'separable': head('DepthwiseSeparableASPPHead', dilations=(1, 2), c1_in_channels=8, c1_channels=4),
        'uper': head('UPerHead', in_channels=[8, 16, 32, 64], in_index=[0, 1, 2, 3], pool_scales=(1, 2)),
        'sigmoid': head(
            'FCNHead',
            num_convs=1,
            num_classes=2,
            out_channels=1,
            threshold=0.4,
            loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True),
        ),
    }
    if name in single:
        return dict(type='EncoderDecoder', backbone=RESNET, decode_head=single[name])
    if name == 'psp_auxiliary':
        auxiliary = head('FCNHead', num_convs=1, concat_input=False, in_channels=32, in_index=2)
        return dict(model_config('psp'), auxiliary_head=auxiliary)
    if name == 'ocr':
        heads = [
            head('FCNHead', num_convs=1, in_channels=32, in_index=2),
            head('OCRHead', ocr_channels=8),
        ]
        return dict(type='CascadeEncoderDecoder', num_stages=2, backbone=RESNET, decode_head=heads)
    assert name in ('segmenter', 'vit_psp')
    backbone = dict(
        type='VisionTransformer',
        img_size=(32, 32),
        patch_size=8,
        in_channels=3,
        embed_dims=16,
        num_layers=2,
        num_heads=2,
        out_indices=(1,),
        final_norm=True,
        interpolate_mode='bicubic',
    )
    if name == 'vit_psp':  # without batch norm
        pyramid = head('PSPHead', pool_scales=(1, 2), in_channels=16, in_index=0, norm_cfg=None)
        return dict(type='EncoderDecoder', backbone=backbone, decode_head=pyramid)
    mask = dict(
        type='SegmenterMaskTransformerHead',
        in_channels=16,
        channels=16,
        num_classes=5,
        num_layers=1,
        num_heads=2,
        embed_dims=16,
        dropout_ratio=0.0,
        loss_decode=LOSS,
    )
    return dict(type='EncoderDecoder', backbone=backbone, decode_head=mask)


@pytest.fixture(autouse=True, scope='session')
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def build_model():
    def build(name, preprocessor=None, seed=0, kind=None, settings=None, **test_cfg):
        torch.manual_seed(seed)
        config = model_config(name)
        config['type'] = kind or config['type']
        config.update(settings or {})
        mean_std = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True, seg_pad_val=255)
        config['data_preprocessor'] = {
            **dict(type='SegDataPreProcessor', size_divisor=1),
            **mean_std,
            **(preprocessor or {}),
        }
        config['test_cfg'] = {'mode': 'whole', **test_cfg}
        config.setdefault('train_cfg', {})
        with DefaultScope.overwrite_default_scope('mmseg'):
            model = MODELS.build(ConfigDict(config))
        # Large random weights, so that a random model predicts more than one class.
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    torch.nn.init.xavier_normal_(parameter, gain=1.5)
        return model.eval()

    return build


@pytest.fixture
def make_batch():
    def make(sizes, classes=5, seed=0, labels=None, **meta):
        """Returns a batch as the dataloader gives it; sizes are (height, width) of each image."""
        random = np.random.default_rng(seed)
        inputs, samples = [], []
        for index, size in enumerate(sizes):
            inputs.append(torch.from_numpy(random.integers(0, 256, (3, *size), dtype=np.uint8)))
            sample = SegDataSample(metainfo=dict(img_path=f'/data/{index}.png', ori_shape=size, img_shape=size, **meta))
            label_size = sample.ori_shape if labels is None else labels
            data = torch.from_numpy(random.integers(0, classes, (1, *label_size)))
            sample.gt_sem_seg = PixelData(data=data)
            samples.append(sample)
        return dict(inputs=inputs, data_samples=samples)

    return make
