"""Attacks without gradients, and models from elsewhere."""

import math
from types import SimpleNamespace

import pytest
import torch
import torchvision
from torch import nn

from mmadv.attacks import PGD, FromPixels, JensenShannon, Linf, RandomNoise, Square, preset
from mmadv.errors import UserError

IMAGES = torch.rand(3, 3, 12, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
THREAT = Linf(radius='16/255')


def network(seed=1):
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 4, 3, padding=1)]
    model = nn.Sequential(*layers).double()
    with torch.no_grad():
        labels = model(IMAGES).argmax(1)
    labels[:, 0, :3] = 255
    return model, labels


def in_levels(model):
    """The same network on images rounded to eight levels: its gradient is zero everywhere."""
    return lambda images: model((images * 7).round() / 7)


def test_square_stays_in_its_budget_and_counts_its_queries():
    model, labels = network()
    result = Square(threat=THREAT, steps=40)(model, IMAGES, labels, seeds=[1, 2, 3])
    change = (result.images - IMAGES).abs()
    assert change.max() <= 16 / 255 + 1e-12
    assert result.forward_passes.tolist() == [41] * 3 and result.backward_passes.tolist() == [0] * 3
    valid = labels != 255
    again = (model(result.images).argmax(1) == labels) & valid
    assert result.accuracy.tolist() == (again.flatten(1).sum(1).double() / valid.flatten(1).sum(1)).tolist()
    noise = RandomNoise(threat=THREAT, steps=5)(model, IMAGES, labels, seeds=[1, 2, 3])
    assert result.accuracy.mean() < noise.accuracy.mean() and (noise.accuracy < 1).all()


@pytest.mark.parametrize('attack', [Square(threat=THREAT, steps=12), RandomNoise(threat=THREAT, steps=3)], ids=repr)
def test_each_image_is_attacked_as_if_alone(attack):
    model, labels = network()
    together = attack(model, IMAGES, labels, seeds=[1, 2, 3])
    for n in range(3):
        alone = attack(model, IMAGES[n : n + 1], labels[n : n + 1], seeds=[n + 1])
        assert torch.equal(alone.images[0], together.images[n])
    other = attack(model, IMAGES, labels, seeds=[4, 2, 3])
    assert not torch.equal(other.images[0], together.images[0])


def test_square_needs_no_gradient_where_pgd_finds_nothing():
    model, labels = network()
    masked = in_levels(model)
    labels = torch.where(labels == 255, labels, masked(IMAGES).argmax(1))
    with pytest.raises(UserError, match='do not depend on the images differentiably'):
        PGD(threat=THREAT, steps=3)(lambda images: masked(images.detach()), IMAGES, labels)
    blind = PGD(threat=THREAT, steps=10, random_start=False)(masked, IMAGES, labels, seeds=[0, 1, 2])
    assert blind.accuracy.tolist() == [1, 1, 1]
    assert Square(threat=THREAT, steps=100)(masked, IMAGES, labels, seeds=[0, 1, 2]).accuracy.max() < 0.95


def test_the_accepted_objective_never_falls():
    model, labels = network()
    seen = []

    class Recorded(JensenShannon):
        def tracked(self, scores, progress):
            values = super().tracked(scores, progress)
            seen.append(values.flatten(1).sum(1))
            return values

    attack = Square(threat=THREAT, steps=30, objective=Recorded())
    result = attack(model, IMAGES, labels, seeds=[0, 1, 2])
    best = torch.stack(seen).cummax(0).values
    final = JensenShannon()(model(result.images), labels).flatten(1).sum(1)
    assert (best[-1] >= best[0]).all() and (best[-1] > best[0]).any()
    assert (final <= best[-1] + 1e-9).all()


def test_the_side_of_the_squares_follows_the_papers_schedule():
    attack = Square(threat=THREAT, steps=10000, share=0.05)
    shares = {0: 1, 11: 2, 51: 4, 201: 8, 501: 16, 1001: 32, 2001: 64, 4001: 128, 6001: 256, 8001: 512}
    for step, halvings in shares.items():
        expected = max(round(math.sqrt(0.05 / halvings * 224 * 224)), 1)
        assert attack._side(step, (224, 224)) == expected
    assert Square(threat=THREAT, share=1.0)._side(0, (12, 10)) == 10


def test_presets_and_refusals():
    assert preset('square', '4/255').steps == 1000 and preset('square', '4/255', 7).steps == 7
    assert preset('noise', '4/255') == RandomNoise(threat=Linf(radius='4/255'))
    with pytest.raises(UserError, match='Square takes a Linf threat'):
        preset('square', 0.5, threat='L2')
    with pytest.raises(UserError, match=r'share must lie in \(0, 1\]'):
        Square(threat=THREAT, share=0)
    l2 = RandomNoise(threat={'type': 'L2', 'radius': 0.5}, steps=2)
    model, labels = network()
    assert (l2(model, IMAGES, labels).images - IMAGES).flatten(1).norm(dim=1).max() <= 0.5 + 1e-9


def test_torchvision_model():
    torch.manual_seed(0)
    inner = torchvision.models.segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=5
    ).eval()
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    model = FromPixels(inner, mean=mean, std=std)
    images = torch.rand(2, 3, 32, 40)
    normalised = torchvision.transforms.functional.normalize(images, mean, std)
    torch.testing.assert_close(model(images), inner(normalised)['out'])
    labels = model(images).argmax(1)
    result = PGD(threat=Linf(radius='32/255'), steps=3)(model, images, labels, seeds=[0, 1])
    assert result.accuracy.shape == (2,) and (result.images - images).abs().max() > 31 / 255


def test_smaller_logits_of_hugging_face_outputs_are_resized():
    small = torch.rand(1, 4, 3, 2, requires_grad=True)
    for output in (SimpleNamespace(logits=small), {'logits': small}, {'out': small}, small):
        model = FromPixels(_Returns(output), mean=[0.0] * 3, std=[1.0] * 3)
        logits = model(torch.rand(1, 3, 12, 8))
        torch.testing.assert_close(logits, nn.functional.interpolate(small, (12, 8), mode='bilinear'))
    with pytest.raises(UserError, match='must return logits .* found list'):
        FromPixels(_Returns([small]), mean=[0.0], std=[1.0])(torch.rand(1, 1, 4, 4))
    with pytest.raises(UserError, match='images have 1 channels, mean has 3 values'):
        FromPixels(_Returns(small), mean=[0.0] * 3, std=[1.0] * 3)(torch.rand(1, 1, 4, 4))
    with pytest.raises(UserError, match='one positive std per mean'):
        FromPixels(_Returns(small), mean=[0.0] * 3, std=[1.0])


class _Returns(nn.Module):
    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, images):
        return self.output
