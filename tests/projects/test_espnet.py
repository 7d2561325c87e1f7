"""ESPNet, a segmentor that lives outside of mmadv: its network, its published keys, its configs."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from convert import convert, main
from espnet_segmentor.published import from_published, renamed
from mmengine.config import Config
from mmseg.structures import SegDataSample

from mmadv.checkpoints.loading import load_weights
from mmadv.errors import UserError
from mmadv.models.building import build_segmentor

PROJECT = Path(__file__).parents[2] / 'projects/espnet'


class NaiveESPNet:
    """The published network written out layer by layer on published keys, whose weights are made of the keys."""

    def __init__(self):
        self.weights = {}

    def weight(self, key, shape):
        seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], 'little')
        r = np.random.RandomState(seed).standard_normal(shape)
        if key.endswith('running_var'):
            r = 1 + 0.1 * np.abs(r)
        elif key.endswith('weight') and len(shape) == 1:
            r = 1 + 0.1 * r if '.act.' not in key else 0.25 + 0.1 * r
        else:
            r = 0.1 * r if len(shape) == 1 else r / np.sqrt(np.prod(shape[1:]))
        self.weights[key] = torch.from_numpy(r)
        return self.weights[key]

    def conv(self, key, x, out, size, stride=1, dilation=1):
        weight = self.weight(f'{key}.weight', (out, x.shape[1], size, size))
        return F.conv2d(x, weight, stride=stride, padding=(size - 1) // 2 * dilation, dilation=dilation)

    def up(self, key, x):
        weight = self.weight(f'{key}.weight', (12, 12, 2, 2))
        return F.conv_transpose2d(x, weight, stride=2)

    def norm(self, key, x):
        names = ('running_mean', 'running_var', 'weight', 'bias')
        mean, var, scale, shift = (self.weight(f'{key}.{n}', (x.shape[1],)).view(1, -1, 1, 1) for n in names)
        self.weights[f'{key}.num_batches_tracked'] = torch.tensor(0)
        return (x - mean) / (var + 1e-3).sqrt() * scale + shift

    def act(self, key, x):
        slope = self.weight(f'{key}.weight', (x.shape[1],)).view(1, -1, 1, 1)
        return torch.where(x > 0, x, slope * x)

    def norm_act(self, key, x):
        return self.act(f'{key}.act', self.norm(f'{key}.bn', x))

    def pyramid(self, key, x, out):
        n = out // 5
        d1 = self.conv(f'{key}.d1.conv', x, out - 4 * n, 3)
        d2, d4, d8, d16 = (self.conv(f'{key}.d{d}.conv', x, n, 3, dilation=d) for d in (2, 4, 8, 16))
        return torch.cat([d1, d2, d2 + d4, d2 + d4 + d8, d2 + d4 + d8 + d16], 1)

    def strided(self, key, x, out):
        return self.norm_act(key, self.pyramid(key, self.conv(f'{key}.c1.conv', x, out // 5, 3, stride=2), out))

    def block(self, key, x, out, add=True):
        made = self.pyramid(key, self.conv(f'{key}.c1.conv', x, out // 5, 1), out)
        return self.norm_act(f'{key}.bn', x + made if add else made)

    def pool(self, x):
        padded = F.pad(x, (1, 1, 1, 1))
        return F.conv2d(padded, torch.full((3, 1, 3, 3), 1 / 9, dtype=x.dtype), stride=2, groups=3)

    def logits(self, x):
        once = self.pool(x)
        twice = self.pool(once)
        level1 = self.norm_act('encoder.level1', self.conv('encoder.level1.conv', x, 16, 3, stride=2))
        b1 = self.norm_act('encoder.b1', torch.cat([level1, once], 1))
        level2_0 = y = self.strided('encoder.level2_0', b1, 64)
        for i in range(2):
            y = self.block(f'encoder.level2.{i}', y, 64)
        b2 = self.norm_act('encoder.b2', torch.cat([y, level2_0, twice], 1))
        level3_0 = y = self.strided('encoder.level3_0', b2, 128)
        for i in range(8):
            y = self.block(f'encoder.level3.{i}', y, 128)
        b3 = self.norm_act('encoder.b3', torch.cat([level3_0, y], 1))
        y = self.up('up_l3.0', self.norm('br', self.conv('encoder.classifier.conv', b3, 12, 1)))
        y = torch.cat([self.conv('level3_C.conv', b2, 12, 1), y], 1)
        y = self.block('combine_l2_l3.1', self.norm_act('combine_l2_l3.0', y), 12, add=False)
        y = self.norm_act('up_l2.1', self.up('up_l2.0', y))
        y = self.norm_act('conv', self.conv('conv.conv', torch.cat([y, b1], 1), 12, 3))
        return self.up('classifier', y)


@pytest.fixture(scope='module')
def naive():
    network = NaiveESPNet()
    inputs = torch.from_numpy(np.random.RandomState(0).rand(2, 3, 40, 48))
    return inputs, network.logits(inputs), network.weights


def segmentor(name='espnet_camvid'):
    return build_segmentor(Config.fromfile(PROJECT / f'configs/{name}.py'))


def test_network_is_the_published_one_from_its_keys(naive, tmp_path):
    inputs, logits, weights = naive
    torch.save(weights, tmp_path / 'published.pth')
    model = convert(tmp_path / 'published.pth', tmp_path / 'new/converted.pth').double().eval()
    model.load_state_dict(from_published(weights))  # in float64
    features = model.extract_feat(inputs)
    torch.testing.assert_close(model.decode_head.all_logits(features), logits, rtol=0, atol=1e-11)
    assert torch.equal(model.decode_head(features), model.decode_head.all_logits(features)[:, :11])
    load_weights(segmentor('espnet_pgd3_camvid'), tmp_path / 'new/converted.pth')
    assert len(list((tmp_path / 'new').iterdir())) == 1


def test_inputs_are_bgr_normalised_and_divided_by_255(naive):
    _, _, weights = naive
    model = segmentor().eval()
    model.load_state_dict(from_published(weights))
    image = torch.randint(0, 256, (3, 24, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean = torch.tensor([107.99726, 106.4418, 103.064316]).view(3, 1, 1)
    std = torch.tensor([77.28294, 78.539116, 77.21147]).view(3, 1, 1)
    inputs = model.data_preprocessor({'inputs': [image], 'data_samples': [SegDataSample()]})['inputs']
    torch.testing.assert_close(inputs[0], (image - mean) / std / 255, rtol=0, atol=1e-7)


def test_files_of_other_networks_are_refused_and_nothing_is_written(naive, tmp_path, capsys, monkeypatch):
    _, _, weights = naive
    for name, content, message in (
        ('other', {'backbone.conv1.weight': torch.zeros(1)}, "'backbone.conv1.weight' is not a key of the published"),
        ('encoder', {k: v for k, v in weights.items() if k != 'classifier.weight'}, '1 missing, first decode_head.up1'),
    ):
        torch.save(content, tmp_path / f'{name}.pth')
        output = tmp_path / name / 'converted.pth'
        monkeypatch.setattr('sys.argv', ['convert.py', str(tmp_path / f'{name}.pth'), str(output)])
        with pytest.raises(SystemExit, match='2'):
            main()
        assert message in capsys.readouterr().err
        assert not output.parent.exists() or not list(output.parent.iterdir())
    with pytest.raises(UserError, match='is not a key of the published ESPNet'):
        renamed('encoder.level3.0.d3.conv.weight')


def test_sizes_that_are_no_multiple_of_eight_are_refused():
    with pytest.raises(UserError, match='multiples of 8; found 20x32'):
        segmentor().extract_feat(torch.zeros(1, 3, 20, 32))


@pytest.mark.parametrize('name', ['espnet_camvid', 'espnet_pgd3_camvid', 'espnet_fast_newton_camvid'])
def test_a_training_step_of_each_config_reaches_every_weight(name):
    model = segmentor(name).train()
    settings = model.data_preprocessor
    assert type(settings).__name__ == ('SegDataPreProcessor' if name == 'espnet_camvid' else 'AdvSegDataPreProcessor')
    labels = torch.randint(0, 11, (2, 32, 40), generator=torch.Generator().manual_seed(0))
    features = model.extract_feat(torch.rand(2, 3, 32, 40, generator=torch.Generator().manual_seed(1)))
    loss = F.cross_entropy(model.decode_head(features), labels)
    loss.backward()
    without = [key for key, parameter in model.named_parameters() if parameter.grad is None]
    assert not without
