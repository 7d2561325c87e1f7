"""What must hold on a GPU: attacks end where they end on a CPU, and adversarial training steps.

Each test also runs on the CPU, so that it works on the day there is a GPU. ``pytest tests/gpu -k cuda`` runs the rest.
"""

import pytest
import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from toy_models import batch, conv_net

from mmadv.attacks.presets import PRESETS, preset
from mmadv.models.building import build_segmentor

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
devices = pytest.mark.parametrize('device', ['cpu', pytest.param('cuda', marks=needs_cuda)])
STEPS = {'auto': 8, 'sea': 3, 'sea-eccv-image': 3}


@devices
# Two need a data set. Signs of small gradients decide the texture of a patch, so rounding changes it.
@pytest.mark.parametrize(
    'name', sorted({name for name in PRESETS if PRESETS[name].radius is None} - {'sea-eccv', 'universal'})
)
def test_attacks_end_where_they_end_on_the_cpu(name, device):
    images, labels = batch()
    attack = preset(name, '8/255', None if PRESETS[name].steps is None else STEPS.get(name, 4))
    seeds = [1, 2, 3]
    expected = attack(conv_net(), images, labels, seeds=seeds)
    result = attack(conv_net().to(device), images.to(device), labels.to(device), seeds=seeds)
    assert result.images.device.type == result.predictions.device.type == device
    torch.testing.assert_close(result.images.cpu(), expected.images, rtol=0, atol=1e-6)
    torch.testing.assert_close(result.accuracy.cpu(), expected.accuracy, rtol=0, atol=1e-9)
    assert result.forward_passes.tolist() == expected.forward_passes.tolist()
    assert result.backward_passes.tolist() == expected.backward_passes.tolist()


def training_batch():
    generator = torch.Generator().manual_seed(0)
    inputs = list(torch.randint(0, 256, (2, 3, 32, 32), generator=generator, dtype=torch.uint8))
    samples = []
    for label in torch.randint(3, (2, 1, 32, 32), generator=generator):
        sample = SegDataSample(gt_sem_seg=PixelData(data=label))
        sample.set_metainfo(dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape'), (32, 32)))
        samples.append(sample)
    return {'inputs': inputs, 'data_samples': samples}


def segmentor():
    attack = dict(type='PGD', threat=dict(type='Linf', radius='4/255'), steps=2, step_size='4/255')
    preprocessor = dict(
        type='AdvSegDataPreProcessor', mean=[127.5] * 3, std=[127.5] * 3, size=(32, 32), attack=attack, prob=1.0
    )
    backbone = dict(type='TimmConvNeXt', depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), layer_scale=None)
    head = dict(type='FCNHead', in_channels=8, in_index=0, channels=8, num_convs=1, concat_input=False, num_classes=3)
    torch.manual_seed(0)
    model = dict(type='EncoderDecoder', data_preprocessor=preprocessor, backbone=backbone, decode_head=head)
    return build_segmentor({'model': {**model, 'test_cfg': dict(mode='whole')}})


@pytest.mark.parametrize(
    ('device', 'precision'),
    [
        ('cpu', None),
        pytest.param('cuda', None, marks=needs_cuda),
        pytest.param('cuda', 'bfloat16', marks=needs_cuda),
        pytest.param('cuda', 'float16', marks=needs_cuda),
    ],
)
def test_adversarial_training_steps(device, precision):
    model = segmentor().to(device).train()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    # A small scale, so that the first step in float16 does not overflow and is not left out.
    wrapper = (
        AmpOptimWrapper(optimizer=optimizer, dtype=precision, loss_scale=8.0) if precision else OptimWrapper(optimizer)
    )
    losses = model.train_step(training_batch(), wrapper)
    assert torch.isfinite(losses['loss']) and losses['loss'].device.type == device
    changed = [name for name, value in model.named_parameters() if not torch.equal(value, before[name])]
    assert any(name.startswith('backbone') for name in changed) and any(name.startswith('decode') for name in changed)
