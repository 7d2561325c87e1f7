"""Attacks inside a region: exactly nothing outside, the whole budget inside."""

import math

import pytest
import torch
from toy_models import PixelLinear, batch, conv_net

from mmadv.attacks import (
    APGD,
    L2,
    PGD,
    PRESETS,
    Box,
    FastNewton,
    GaussianNoise,
    Linf,
    Pixels,
    RandomNoise,
    Square,
    WorstPlace,
    preset,
)
from mmadv.attacks.trained_attack import TrainingBatch
from mmadv.attacks.universal import Universal
from mmadv.errors import UserError
from mmadv.registry import ATTACKS, THREATS, build

BOX = Box(top=0.25, left=0.2, height=0.5, width=0.4)  # of 8 x 10 pixels: rows 2 to 5, columns 2 to 5
INSIDE = torch.zeros(1, 1, 8, 10, dtype=torch.bool)
INSIDE[..., 2:6, 2:6] = True


def odd_pixels(n):
    """Other pixels for each image."""
    generator = torch.Generator().manual_seed(n)
    return Pixels(torch.rand(n, 1, 8, 10, generator=generator) < 0.3)


@pytest.mark.parametrize('threat', [Linf(radius='8/255'), L2(radius=0.5)], ids=repr)
def test_a_threat_inside_a_region(threat):
    images, _ = batch(5)
    for region in (BOX, odd_pixels(3)):
        inside, mask = threat.inside(region), region.mask(images).expand(3, 3, 8, 10)
        far = images + torch.randn(images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        projected = inside.project(far, images)
        assert torch.equal(projected[~mask], images[~mask])
        # The same as projecting the far image that is clean outside.
        torch.testing.assert_close(projected, threat.project(torch.where(mask, far, images), images))
        gradient = far - images
        moved = inside.step(images, gradient, 0.1)
        assert torch.equal(moved[~mask], images[~mask])
        torch.testing.assert_close(moved, threat.step(images, torch.where(mask, gradient, 0), 0.1))
        start = inside.random_start(images, [1, 2, 3])
        assert inside.contains(start, images).all() and (start != images)[mask].float().mean() > 0.9
        assert torch.equal(start[1:2], threat.inside(_row(region, 1)).random_start(images[1:2], [2]))
        assert not inside.contains(threat.random_start(images, [1, 2, 3]), images).any()
        assert inside.scaled(0.5).region is region and inside.with_radius(0.1).region is region


def _row(region, n):
    return Pixels(region.pixels[n : n + 1]) if isinstance(region, Pixels) else region


def test_random_starts_fill_the_l2_ball_of_the_region():
    centre = torch.full((400, 1, 2, 2), 0.5, dtype=torch.float64)
    threat = L2(radius=0.25, region=Box(top=0, left=0, height=0.5, width=1))
    offset = threat.random_start(centre, list(range(400))) - centre
    # For a uniform disc, which two values are, (r/R)^2 is uniform on [0, 1]: mean 1/2, standard error 0.0144.
    assert abs((offset.flatten(1).norm(dim=1) / 0.25).square().mean() - 0.5) < 0.06
    assert threat.whole_range(centre) == math.sqrt(2)


@pytest.mark.parametrize('name', [name for name in PRESETS if name != 'universal' and PRESETS[name].radius is None])
def test_presets_keep_the_region(name):
    threat = {
        'type': 'Linf',
        'radius': '8/255',
        'region': {'type': 'Box', 'top': 0, 'left': 0, 'height': 1, 'width': 0.5},
    }
    attack = PRESETS[name].make(build(threat, THREATS), PRESETS[name].steps or 1)
    assert attack.threat.region == preset(name, '8/255').inside(Box(top=0, left=0, height=1, width=0.5)).threat.region
    description = attack.describe()
    assert build(description, ATTACKS).threat == attack.threat
    assert 'region' not in str(preset(name, '8/255').describe())


def test_the_optimum_inside_a_box_is_reached():
    """Each pixel of a linear model by itself: pixels of the box lose as without it, the others not at all."""
    model = PixelLinear([0.5, -1.0, 0.25], 0.2)
    images = torch.rand(2, 3, 8, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.6 + 0.2
    labels = model(images).argmax(1)
    margin = model(images)[:, 1].abs()
    result = APGD(threat=Linf(radius=0.1, region=BOX), steps=20)(model, images, labels)
    expected = (margin <= 0.1 * 1.75) & INSIDE[:, 0]
    assert torch.equal(result.predictions != labels, expected)


def test_squares_lie_in_the_region():
    images, _ = batch(0)
    many = Square(threat=Linf(radius='8/255', region=BOX), steps=1)
    assert many._bounds(images) == [(2, 2, 4, 4)] * 3
    pixels = Pixels(torch.zeros(3, 1, 8, 10, dtype=torch.bool))
    pixels.pixels[1, 0, 7, 3] = True
    assert Square(threat=Linf(radius='8/255', region=pixels), steps=1)._bounds(images)[1] == (7, 3, 1, 1)


def test_a_universal_perturbation_is_trained_inside_the_region():
    model, (images, labels) = conv_net(0).eval(), batch(0)
    for threat in (Linf(radius='8/255'), L2(radius=0.5)):
        attack = Universal(threat=threat.inside(BOX), steps=3)
        trained = attack.train([[TrainingBatch(model, images, labels)]] * 3, seed=0, ignore_index=255)
        mask = INSIDE[0].expand_as(trained.perturbation)
        assert not trained.perturbation[~mask].any() and (trained.perturbation[mask] != 0).float().mean() > 0.9
        result = trained(model, images, labels)
        assert torch.equal(result.images[..., 6:, :], images[..., 6:, :])


def test_the_worst_of_several_boxes():
    inner = APGD(threat=Linf(radius=0.2), steps=6, random_start=False)
    attack = WorstPlace(attack=inner, places=4, share=0.25)
    boxes = attack.boxes()
    assert (boxes[0].top, boxes[0].left, boxes[0].height, boxes[0].width) == (0.25, 0.25, 0.5, 0.5)
    assert len({(box.top, box.left) for box in boxes}) == 4
    model, (images, _) = conv_net(0).eval(), batch(0)
    labels = model(images).argmax(1)
    result = attack(model, images, labels, seeds=[1, 2, 3])
    singles = torch.stack([inner.inside(box)(model, images, labels).accuracy for box in boxes])
    assert torch.equal(result.accuracy, singles.amin(0)) and (singles[0] > singles.amin(0)).any()
    masks = [box.mask(images)[0, 0] for box in boxes]
    for changed in (result.images != images).any(1):
        assert any(not changed[~mask].any() for mask in masks)
    assert attack.title == 'worst of 4 boxes of 25 % for APGD'
    started = attack(model, images, labels, start=torch.ones_like(images))
    for changed in (started.images != images).any(1):
        assert any(not changed[~mask].any() for mask in masks)


def test_an_empty_region_leaves_the_image():
    images, labels = batch(0)
    empty = Pixels(torch.zeros(1, 1, 8, 10, dtype=torch.bool))
    for attack in (RandomNoise(threat=L2(radius=0.5, region=empty)), PGD(threat=L2(radius=0.5, region=empty), steps=2)):
        assert torch.equal(attack(conv_net(0), images, labels).images, images)


def test_boxes_hold_the_pixels_whose_centres_they_hold():
    mask = Box(top=0.0, left=0.29, height=1 / 3, width=0.42).mask(torch.zeros(1, 3, 9, 10))
    assert mask[0, 0].any(1).tolist() == [True] * 3 + [False] * 6
    assert mask[0, 0].any(0).nonzero().squeeze(1).tolist() == [3, 4, 5, 6]
    whole = Box(top=0, left=0, height=1, width=1).mask(torch.zeros(1, 3, 7, 5))
    assert whole.all() and whole.shape == (1, 1, 7, 5)


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: Box(top=0.5, left=0, height=0.6, width=1), r'Box: top \+ height must be at most 1.*found 1.1'),
        (lambda: Box(top=0, left=0, height=0.5, width=0), 'Box: width must be more than 0'),
        (
            lambda: Box(top=0, left=0, height=0.01, width=1).mask(torch.zeros(1, 3, 8, 8)),
            'no pixel of an image of 8x8',
        ),
        (lambda: Linf(radius=0.1, region='box'), "region 'box' must be a dict with a 'type'"),
        (lambda: Linf(radius=0.1, region={'type': 'Circle'}), "unknown region 'Circle'"),
        (lambda: FastNewton(region=3), 'FastNewton.region must be a region, its config, or None; found 3'),
        (lambda: odd_pixels(2).mask(torch.zeros(3, 3, 8, 10)), r'a region of \(2, 1, 8, 10\) is not one of images of'),
        (lambda: GaussianNoise(sigma=0.1).inside(BOX), 'GaussianNoise has no radius'),
        (lambda: WorstPlace(attack=PGD(threat=Linf(radius=0.1, region=BOX))), 'attack has a region already'),
        (lambda: WorstPlace(attack=GaussianNoise(sigma=0.1)), 'GaussianNoise has no radius'),
    ],
)
def test_mistakes_are_told(call, message):
    with pytest.raises(UserError, match=message):
        call()
