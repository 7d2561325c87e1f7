from types import SimpleNamespace

import torch
from mmseg.registry import HOOKS
from torch import nn


def test_weights_are_laid_out_channels_last_and_values_stay():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3)).double().eval()
    images = torch.rand(2, 3, 9, 11, dtype=torch.float64)
    before, state = model(images), {key: value.clone() for key, value in model.state_dict().items()}
    HOOKS.build(dict(type='ChannelsLastHook')).before_run(SimpleNamespace(model=model))
    assert all(model[i].weight.is_contiguous(memory_format=torch.channels_last) for i in (0, 2))
    torch.testing.assert_close(model(images), before)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
