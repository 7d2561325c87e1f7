import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmadv.attacks import APGD, L1, L2, Linf, parse_radius
from mmadv.errors import UserError
from mmadv.registry import THREATS, build

THREATS_TRIED = [Linf(radius='8/255'), Linf(radius=0.5), L2(radius=0.3), L2(radius=2.0), L1(radius=0.5), L1(radius=9.0)]
THREAT = st.sampled_from(THREATS_TRIED)


def images(seed, n=3):
    return torch.rand(n, 3, 5, 4, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('4/255', 4 / 255),
        ('0.5/255', 0.5 / 255),
        (' 4 / 255 ', 4 / 255),
        ('0.03', 0.03),
        (0.25, 0.25),
        ('1e-3', 1e-3),
        (0, 0),
    ],
)
def test_parse_radius(text, value):
    assert parse_radius(text) == value


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('4/0', "'4/0' divides by zero"),
        ('-1/255', "'-1/255' is negative"),
        (-0.1, "'-0.1' is negative"),
        ('1/2/255', 'is not a number'),
        ('4/', 'is not a number'),
        ('four', "'four' is not a number"),
        ('', "'' is not a number"),
        (None, 'None is not a number'),
        (True, 'True is not a number'),
        (math.inf, 'is not finite'),
        (math.nan, 'is not finite'),
    ],
)
def test_parse_radius_refuses(text, message):
    with pytest.raises(UserError, match=message):
        parse_radius(text)


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        ({'type': 'Linf', 'radius': 0}, 'radius 0 leaves an attack nothing to change'),
        ({'type': 'L2', 'radius': '0/255'}, 'radius 0 leaves an attack nothing to change'),
        ({'type': 'Linf', 'radius': 4}, 'Linf radius 4 is more than the whole range'),
        ({'type': 'linf', 'radius': 0.1}, "unknown threat model 'linf'; did you mean 'Linf'?"),
        ({'type': 'Linf', 'eps': 0.1}, "Linf has no argument 'eps'"),
        ({'type': 'Linf'}, 'Linf needs the argument radius'),
        ({'radius': 0.1}, "needs a 'type'"),
        ('Linf', "must be a dict with a 'type'"),
    ],
)
def test_build_refuses(config, message):
    with pytest.raises(UserError, match=message.replace('?', r'\?')):
        build(config, THREATS)


@settings(max_examples=40, deadline=None)
@given(threat=THREAT, seed=st.integers(0, 10**6), spread=st.floats(0, 3))
def test_projection_is_in_the_budget_idempotent_and_nearest_for_linf(threat, seed, spread):
    centre = images(seed)
    far = centre + spread * torch.randn(centre.shape, generator=torch.Generator().manual_seed(seed + 1))
    projected = threat.project(far, centre)
    assert threat.contains(projected, centre).all()
    torch.testing.assert_close(threat.project(projected, centre), projected, rtol=0, atol=1e-6)
    inside = threat.random_start(centre, [1, 2, 3])
    torch.testing.assert_close(threat.project(inside, centre), inside, rtol=0, atol=1e-6)
    if isinstance(threat, Linf):
        naive = [
            min(max(value, origin - threat.radius, 0.0), origin + threat.radius, 1.0)
            for value, origin in zip(far.flatten().tolist(), centre.flatten().tolist(), strict=True)
        ]
        torch.testing.assert_close(projected.flatten(), torch.tensor(naive), rtol=0, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(threat=THREAT, seed=st.integers(0, 10**6))
def test_step_has_the_length_asked_for_and_goes_uphill(threat, seed):
    centre, gradient = images(seed), images(seed + 1) - 0.5
    moved = threat.step(centre, gradient, 0.01) - centre
    torch.testing.assert_close(threat.distance(centre + moved, centre), torch.full((3,), 0.01), rtol=1e-3, atol=1e-6)
    assert ((moved * gradient).flatten(1).sum(1) > 0).all()
    if isinstance(threat, L1):  # sparse, not steepest: see test_l1.py
        return
    # No step of that length gains more to first order (Hoelder's inequality).
    dual = gradient.abs().flatten(1).sum(1) if isinstance(threat, Linf) else gradient.flatten(1).norm(dim=1)
    torch.testing.assert_close((moved * gradient).flatten(1).sum(1), 0.01 * dual, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize('scale', [1e-30, 1e30])
def test_l2_step_keeps_its_length_for_tiny_and_huge_gradients(scale):
    centre, gradient = images(0), (images(1) - 0.5) * scale
    moved = L2(radius=1.0).step(centre, gradient, 0.1)
    torch.testing.assert_close((moved - centre).flatten(1).norm(dim=1), torch.full((3,), 0.1))


@pytest.mark.parametrize('threat', [Linf(radius=0.1), L2(radius=0.1), L1(radius=0.1)], ids=repr)
def test_zero_gradient_moves_nothing(threat):
    centre = images(0)
    assert torch.equal(threat.step(centre, torch.zeros_like(centre), 0.1), centre)


@pytest.mark.parametrize('threat', [Linf(radius=0.1), L2(radius=0.4), L1(radius=3.0)], ids=repr)
def test_random_start_depends_on_its_image_and_seed_alone(threat):
    centre = images(0)
    whole = threat.random_start(centre, [5, 6, 7])
    assert torch.equal(whole[1:2], threat.random_start(centre[1:2], [6]))
    assert not torch.equal(whole[1:2], threat.random_start(centre[1:2], [7]))
    assert threat.contains(whole, centre).all()


def test_random_start_is_uniform_in_the_ball():
    centre = torch.full((400, 1, 1, 2), 0.5, dtype=torch.float64)
    seeds = list(range(400))
    offset = L2(radius=0.25).random_start(centre, seeds) - centre
    # For a uniform disc (r/R)^2 is uniform on [0, 1]: mean 1/2, standard error 0.0144.
    share = (offset.flatten(1).norm(dim=1) / 0.25).square()
    assert abs(share.mean() - 0.5) < 0.06
    linf = (Linf(radius=0.25).random_start(centre, seeds) - centre) / 0.25
    assert abs(linf.mean()) < 0.08 and abs(linf.square().mean() - 1 / 3) < 0.04


def test_contains_finds_violations():
    centre = images(0)
    outside = centre.clone()
    outside[1, 0, 0, 0] = centre[1, 0, 0, 0] + (0.11 if centre[1, 0, 0, 0] < 0.5 else -0.11)
    assert Linf(radius=0.1).contains(outside, centre).tolist() == [True, False, True]
    assert L2(radius=0.1).contains(outside, centre).tolist() == [True, False, True]
    negative = centre - centre.clamp_max(0.05) - 1e-3
    assert not Linf(radius=0.1).contains(negative, centre).any()


def change(kind, shape, generator):
    """Returns a change of an image: of all values alike, in size or altogether, or of few values."""
    if kind == 'normal':
        return torch.randn(shape, generator=generator)
    signs = torch.randint(2, shape, generator=generator) * 2.0 - 1
    return {'signs': signs, 'same': torch.ones(shape), 'few': signs * (torch.rand(shape, generator=generator) < 1e-3)}[
        kind
    ]


def exact_ratio(images, centre, radius):
    """Returns the norm of a change of float32 images as a multiple of the radius.

    Differences of float32 numbers in [0, 1] that are near each other are exact in long double, and the sum of a million
    squares has a relative error below 1e-12.
    """
    change = images.numpy().astype(np.longdouble) - centre.numpy().astype(np.longdouble)
    return float(np.sqrt(np.square(change).sum()) / np.longdouble(radius))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(['normal', 'signs', 'same', 'few']),
    radius=st.floats(-6, 2).map(lambda power: 10.0**power),
    size=st.sampled_from([(5, 4), (48, 64), (96, 128)]),
    levels=st.booleans(),
)
def test_l2_projection_is_inside_the_ball_after_rounding(seed, kind, radius, size, levels):
    assert_inside(seed, kind, radius, size, levels)


@pytest.mark.parametrize(('kind', 'radius'), [('normal', 3e-3), ('signs', 3e-5), ('same', 0.5), ('few', 3e-3)], ids=str)
def test_l2_projection_is_inside_the_ball_on_images_of_2048x1024(kind, radius):
    assert_inside(7, kind, radius, (1024, 2048), levels=True)


def assert_inside(seed, kind, radius, size, levels):
    generator = torch.Generator().manual_seed(seed)
    shape = (1, 3, *size)
    centre = torch.randint(256, shape, generator=generator) / 255 if levels else torch.rand(shape, generator=generator)
    far = centre + 0.1 * change(kind, shape, generator)
    threat = L2(radius=radius)
    projected = threat.project(far, centre)
    assert exact_ratio(projected, centre, radius) <= 1 - 1e-12
    assert threat.contains(projected, centre).all()
    assert torch.equal(threat.project(projected, centre), projected)
    if kind == 'normal' and size == (1024, 2048):
        assert exact_ratio(projected, centre, radius) > 0.98  # rounding takes hardly anything of the budget


def test_l2_projection_of_float64_images_is_inside_the_ball_in_fractions():
    generator = torch.Generator().manual_seed(1)
    centre = torch.rand((1, 3, 6, 5), dtype=torch.float64, generator=generator)
    for radius in (1e-13, 3e-7, 0.2):
        projected = L2(radius=radius).project(centre + torch.randn(centre.shape, generator=generator).double(), centre)
        pairs = zip(projected.flatten().tolist(), centre.flatten().tolist(), strict=True)
        assert sum((Fraction(value) - Fraction(origin)) ** 2 for value, origin in pairs) <= Fraction(radius) ** 2
        assert L2(radius=radius).contains(projected, centre).all()


def test_attack_of_a_tiny_l2_radius_stays_in_its_budget_on_a_large_image():
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = torch.nn.Conv2d(3, 3, 3, padding=1)
    images = torch.randint(256, (1, 3, 384, 512), generator=generator) / 255
    labels = torch.randint(3, (1, 384, 512), generator=generator)
    for radius in (3e-3, 3e-5):
        actual = APGD(threat=L2(radius=radius), steps=4)(model, images, labels).images
        assert 0.5 < exact_ratio(actual, images, radius) <= 1


def test_scaled():
    assert Linf(radius=0.1).scaled(2) == Linf(radius=0.2)
    assert Linf(radius=0.7).scaled(2) == Linf(radius=1.0)
    assert L2(radius=0.7).scaled(2) == L2(radius=1.4)
