"""The measurement of which pixels AMA spends its steps on: its shares, cosines and coverage, and the table."""

import json
from types import SimpleNamespace

import gradient_mass
import pytest
import torch
from toy_models import batch, conv_net

from mmadv.attacks import ama
from mmadv.attacks.pixel_scores import PixelScores

STORED = json.loads(gradient_mass.PATH.read_text(encoding='utf-8'))


def test_the_page_shows_the_stored_numbers():
    assert gradient_mass.section(STORED) in gradient_mass.PAGE.read_text(encoding='utf-8')


def test_coverage_is_the_share_of_patches_with_equal_mass():
    gradient = torch.zeros(2, 3, 16, 32)
    gradient[0] = 1
    gradient[1, :, :8, :16] = -2
    assert gradient_mass.coverage(gradient).tolist() == pytest.approx([1, 2 / 8])


def test_every_valid_pixel_is_of_one_kind():
    logits = torch.tensor([5.0, 1.0, -1.0, 5.0, 0.0]).view(1, 1, 1, 5)
    labels = torch.tensor([0, 0, 0, 255, 1]).view(1, 1, 5)
    scores = PixelScores(torch.cat([logits, 0 * logits - 1], 1), labels, scale=torch.tensor([6.0]))
    kinds = gradient_mass.kinds_of(scores)
    assert {kind: mask.flatten().nonzero().flatten().tolist() for kind, mask in kinds.items()} == {
        'flipped': [4],
        'near': [1, 2],
        'far': [0],
    }


def test_shares_add_up_and_the_gradient_is_that_of_the_attack():
    net, (images, labels) = conv_net(24).eval(), batch(24, n=2)
    net.ignore_index = 255
    objective = ama('4/255', 10).objective
    with torch.no_grad():
        scale = objective.scale(PixelScores(net(images), labels))
    values = gradient_mass.analysis(SimpleNamespace(model=net, labels=labels), images, objective, scale, 0.3)
    for name in ('pixels', 'mass_at_logits', 'mass_at_image'):
        assert sum(values[name].values()) == pytest.approx(1, abs=1e-3) and min(values[name].values()) >= 0
    assert 0 < values['coverage'] <= 1 and all(-1 <= value <= 1 for value in values['cosines'].values())
