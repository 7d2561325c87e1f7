"""Equality with published implementations: tests/data/objectives.npz and tests/data/apgd.npz."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mmadv.attacks import (
    APGD,
    BalancedCrossEntropy,
    CrossEntropy,
    JensenShannon,
    Linf,
    MaskedCrossEntropy,
    MaskedSpherical,
    RadiusReduction,
)

DATA = Path(__file__).parents[1] / 'data'


class MaskedSphericalTrackingItself(MaskedSpherical):
    """The published run followed the masked loss, not the unmasked one that we follow."""

    def _tracked_loss(self, scores, progress):
        return self._loss(scores, progress)


VALUES = {
    'ce': (CrossEntropy(), 0.0),
    'masked_ce': (MaskedCrossEntropy(), 0.0),
    'js': (JensenShannon(), 0.0),
    'masked_spherical': (MaskedSpherical(), 0.0),
    'balanced_ce_t0of90': (BalancedCrossEntropy(), 0.0),
    'balanced_ce_t45of90': (BalancedCrossEntropy(), 0.5),
    'balanced_ce_t90of90': (BalancedCrossEntropy(), 1.0),
}
ATTACKED = {
    'ce': CrossEntropy(),
    'masked_ce': MaskedCrossEntropy(),
    'balanced_ce': BalancedCrossEntropy(),
    'js': JensenShannon(),
    'masked_spherical': MaskedSphericalTrackingItself(),
}


@pytest.fixture(scope='module')
def objectives():
    return np.load(DATA / 'objectives.npz')


@pytest.fixture(scope='module')
def apgd():
    return np.load(DATA / 'apgd.npz')


@pytest.mark.parametrize('name', VALUES)
@pytest.mark.parametrize('suffix', ['', '_ignored'])
def test_objective_values_and_gradients(objectives, name, suffix):
    if f'{name}{suffix}_loss' not in objectives:
        assert name == 'masked_spherical'  # the only one published without ignored pixels
        return
    objective, progress = VALUES[name]
    logits = torch.tensor(objectives['logits']).requires_grad_()
    labels = torch.tensor(objectives['labels_with_ignored' if suffix else 'labels'])
    value = objective(logits, labels, progress=progress, ignore_index=-1)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    np.testing.assert_allclose(value.detach(), objectives[f'{name}{suffix}_loss'], rtol=0, atol=1e-10)
    np.testing.assert_allclose(gradient, objectives[f'{name}{suffix}_grad'], rtol=0, atol=1e-10)


def network(arrays):
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 5, 3, padding=1)).double()
    keys = {'0.weight': 'conv1_weight', '0.bias': 'conv1_bias', '2.weight': 'conv2_weight', '2.bias': 'conv2_bias'}
    net.load_state_dict({key: torch.tensor(arrays[name]) for key, name in keys.items()})
    return net


@pytest.mark.parametrize('name', ATTACKED)
@pytest.mark.parametrize('radius', [2, 8])
@pytest.mark.parametrize('form', ['apgd60', 'redeps100'])
def test_apgd_and_radius_reduction(apgd, name, radius, form):
    images, labels, noise = (torch.tensor(apgd[key]) for key in ('images', 'labels', 'unit_noise'))
    threat = Linf(radius=f'{radius}/255')
    if form == 'apgd60':
        attack = APGD(threat=threat, steps=60, objective=ATTACKED[name])
        start = (images + threat.radius * noise).clamp(0, 1)
        key = 'apgd60_lowest_accuracy_images'
    else:
        attack = RadiusReduction(attack=APGD(threat=threat, steps=100, objective=ATTACKED[name]))
        start = (images + 2 * threat.radius * noise).clamp(0, 1)
        key = 'redeps100_images'
    result = attack(network(apgd), images, labels, start=start)
    np.testing.assert_array_equal(result.accuracy, apgd[f'{name}_eps{radius}_{form}_accuracy'])
    np.testing.assert_allclose(result.images, apgd[f'{name}_eps{radius}_{key}'], rtol=0, atol=1e-6)
    passes = {'apgd60': (61, 60), 'redeps100': (103, 100)}[form]
    assert (result.forward_passes == passes[0]).all() and (result.backward_passes == passes[1]).all()
