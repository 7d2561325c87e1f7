"""Frozen norms: which are put into eval mode, the check that they were trained, and eval mode for a while."""

import pytest
import torch
from torch import nn

from mmadv.errors import UserError
from mmadv.models.frozen_norms import check_statistics, eval_mode, freeze_norms


def network():
    return nn.Sequential(
        *(nn.BatchNorm2d(4), nn.SyncBatchNorm(4), nn.InstanceNorm2d(4, track_running_stats=True)),
        *(nn.GroupNorm(2, 4), nn.InstanceNorm2d(4), nn.BatchNorm2d(4, track_running_stats=False), nn.Dropout()),
    ).train()


def test_norms_with_running_statistics_are_frozen():
    model = network()
    assert freeze_norms(model) == ['0', '1', '2']
    assert [module.training for module in model] == [False] * 3 + [True] * 4
    assert freeze_norms(model) == []


def test_norms_that_were_never_trained_are_named():
    model = nn.Sequential(nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm2d(4)), nn.BatchNorm2d(4))
    with torch.no_grad():
        model[0](torch.randn(2, 4, 3, 3))
        model[2].running_var.mul_(2)
    message = r'Sequential trains with frozen batch norms, but 1 of 3 were never trained \(first: 1.0\); set load_from'
    with pytest.raises(UserError, match=message):
        check_statistics(model, ['0', '1.0', '2'])
    check_statistics(model, ['0', '2'])


def test_eval_mode_gives_every_module_its_own_mode_back():
    model = network()
    model[3].eval()
    modes = [module.training for module in model.modules()]
    with pytest.raises(ValueError, match='inside'), eval_mode(model):
        assert not any(module.training for module in model.modules())
        raise ValueError('inside')
    assert [module.training for module in model.modules()] == modes
