"""The signs of masked gradients: each is found on a model made to show it, and none on an honest one."""

import pytest
import torch
from torch import nn

from mmadv.attacks import APGD, FGSM, L2, PGD, FastNewton, Linf, RandomNoise, auto, sea
from mmadv.robustness.sanity_checks import LARGE_RADIUS, judge, measure

IMAGES = torch.rand(2, 3, 10, 10, generator=torch.Generator().manual_seed(0))
THREAT = Linf(radius='16/255')
STRONG = PGD(threat=THREAT, steps=30, keep='lowest_accuracy')


def network():
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.Tanh(), nn.Conv2d(16, 4, 3, padding=1))


def failed(model, attack=STRONG, queries=150):
    with torch.no_grad():
        labels = network()(IMAGES).argmax(1)
    numbers = measure(model, IMAGES, labels, attack, seeds=[0, 1], queries=queries)
    assert all(len(values) == 2 for values in numbers.values())
    return {finding.name: finding.evidence for finding in judge(numbers) if not finding.passed}


def test_an_honest_network_shows_no_sign():
    assert failed(network()) == {}


class Quantised(nn.Module):
    """Rounds its input: no gradient, and no more robust for it."""

    def __init__(self):
        super().__init__()
        self.inner = network()

    def forward(self, images):
        return self.inner((images * 24).round() / 24)


def test_masked_gradients_are_found():
    actual = failed(Quantised())
    assert 'exactly zero at up to 100.0 %' in actual['gradients are not zero']
    assert 'the black-box attack is weaker than the attack' in actual
    assert failed(lambda images: Quantised()(images.detach()), RandomNoise(threat=THREAT)).keys() >= {
        'gradients are not zero'
    }


def test_a_random_forward_pass_is_found():
    inner = network()
    actual = failed(lambda images: inner(images) + 0.05 * torch.randn(2, 4, 10, 10))
    assert 'the forward pass is deterministic' in actual


@pytest.mark.filterwarnings('ignore:.*, less than the radius:UserWarning')
def test_too_few_iterations_are_found():
    actual = failed(network(), PGD(threat=THREAT, steps=2, step_size='1/255', keep='lowest_accuracy'))
    assert 'more iterations no longer help' in actual
    assert 'more iterations no longer help' in failed(network(), FGSM(threat=THREAT, step_size='1/255'))


def test_another_norm_leaves_out_what_is_for_linf():
    labels = network()(IMAGES).argmax(1)
    numbers = measure(network(), IMAGES, labels, PGD(threat=L2(radius=1.0), steps=3), seeds=[0, 1])
    assert 'square' not in numbers and 'large' not in numbers
    assert len(judge(numbers)) == 5


def test_each_number_is_judged_by_its_own_limit():
    fine = {name: [0.2, 0.1] for name in ('attack', 'pgd', 'longer')}
    fine |= {name: [0.5, 0.5] for name in ('fgsm', 'noise', 'square')}
    fine |= {'difference': [0, 1e-6], 'zero_share': [0, 0.3], 'large': [0, 0.02]}
    assert all(finding.passed for finding in judge(fine))
    changes = {
        'difference': [0, 1e-3],
        'zero_share': [0, 0.6],
        'longer': [0.1, 0.1],
        'noise': [0.1, 0.1],
        'fgsm': [0.1, 0.1],
        'square': [0.1, 0.1],
        'large': [0.0, 0.2],
    }
    for number, (name, values) in enumerate(changes.items()):
        findings = judge(fine | {name: values})
        assert [n for n, finding in enumerate(findings) if not finding.passed] == [number]
        assert all(finding.advice and finding.evidence for finding in findings)
    assert LARGE_RADIUS == 0.5


def test_number_of_iterations():
    assert [attack.steps for attack in (STRONG, sea('4/255', 30), auto('4/255', 50), APGD(threat=THREAT))] == [
        30,
        30,
        50,
        100,
    ]
    assert FastNewton().steps is None
