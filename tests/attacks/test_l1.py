"""The L1 ball: its projection and steps against definitions, and attacks against the closed form on linear models."""

import pytest
import torch
from torch import nn

from mmadv.attacks import APGD, L1, PGD, Box, Linf, preset
from mmadv.attacks.apgd import SparseSchedule
from mmadv.errors import UserError


def images(seed, n=3, size=(5, 4)):
    return torch.rand(n, 3, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize('spread', [0.02, 0.3, 3.0])
@pytest.mark.parametrize('radius', [0.3, 2.0, 12.0])
def test_projection_is_the_nearest_image_of_ball_and_box(spread, radius):
    centre = images(0)
    far = centre + spread * torch.randn(centre.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    projected = L1(radius=radius).project(far, centre)
    size = (far - centre).abs()
    room = torch.where(far < centre, centre, 1 - centre)
    for n in range(3):
        # The optimality conditions: every change is its size less one number, cut off at zero and at the room.
        low, high = 0.0, float(size[n].max())
        for _ in range(100):
            middle = (low + high) / 2
            total = torch.minimum((size[n] - middle).clamp_min(0), room[n]).sum()
            low, high = (middle, high) if total > radius else (low, middle)
        change = torch.minimum((size[n] - high).clamp_min(0), room[n])
        torch.testing.assert_close(projected[n], centre[n] + change * (far - centre)[n].sign(), rtol=0, atol=1e-8)


@pytest.mark.parametrize('size', [(5, 4), (96, 128)])
def test_projection_is_inside_after_rounding(size):
    centre = images(2, size=size).float()
    far = centre + torch.randn(centre.shape, generator=torch.Generator().manual_seed(3)) * 0.1
    for radius in (1e-3, 0.7, 30.0):
        threat = L1(radius=radius)
        projected = threat.project(far, centre)
        norm = (projected.double() - centre.double()).abs().flatten(1).sum(1)
        assert (norm <= radius).all() and threat.contains(projected, centre).all()
        assert torch.equal(threat.project(projected, centre), projected)
        assert (norm > 0.98 * min(radius, 1e9)).all() or size == (5, 4)


def test_a_step_of_one_value_is_the_steepest():
    centre, gradient = images(0), images(1) - 0.5
    moved = L1(radius=1.0, density=1e-9).step(centre, gradient, 0.1) - centre
    assert ((moved != 0).flatten(1).sum(1) == 1).all()
    torch.testing.assert_close((moved * gradient).flatten(1).sum(1), 0.1 * gradient.abs().flatten(1).amax(1))


def test_a_step_is_spread_equally_over_its_share_of_the_values():
    centre, gradient = images(0), images(1) - 0.5
    moved = L1(radius=1.0, density=0.2).step(centre, gradient, 0.6) - centre
    for change, slope in zip(moved.flatten(1), gradient.flatten(1), strict=True):
        chosen = slope.abs().topk(12).indices
        torch.testing.assert_close(change[chosen], 0.05 * slope[chosen].sign())
        assert (change != 0).sum() == 12


def test_random_starts_fill_the_ball():
    centre = torch.full((400, 1, 1, 2), 0.5, dtype=torch.float64)
    offset = L1(radius=0.25).random_start(centre, list(range(400))) - centre
    # For a uniform square, (norm / radius)^2 is uniform on [0, 1], and so is the share of the first value in the norm.
    norm = offset.flatten(1).abs().sum(1)
    assert abs((norm / 0.25).square().mean() - 0.5) < 0.06
    assert abs((offset[:, 0, 0, 0].abs() / norm).mean() - 0.5) < 0.06
    assert abs(offset.sign().mean()) < 0.1


class Whole(nn.Module):
    """Two-class logits (0, <w, x> + b) of a whole image, the same at every pixel."""

    def __init__(self, weight, bias):
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), bias

    def forward(self, images):
        score = (images * self.weight).flatten(1).sum(1) + self.bias
        score = score.view(-1, 1, 1).expand(-1, *images.shape[2:])
        return torch.stack([torch.zeros_like(score), score], 1)


def largest_gain(weight, image, radius, mask):
    """Returns how far <w, x> can fall in ball and box: the values of largest weight move first, as far as they can."""
    weight, image = weight[mask], image[mask]
    room = torch.where(weight > 0, image, 1 - image)
    order = weight.abs().argsort(descending=True)
    before = room[order].cumsum(0) - room[order]
    return float((weight.abs()[order] * torch.minimum(room[order], (radius - before).clamp_min(0))).sum())


@pytest.mark.parametrize('region', [None, Box(top=0, left=0, height=0.5, width=1)], ids=['whole', 'box'])
@pytest.mark.parametrize(
    'attack', [APGD(threat=L1(radius=1.0), steps=60), preset('tsallis', 1.0, 60, 'L1')], ids=['APGD', 'tsallis']
)
def test_attacks_come_near_the_closed_form_on_a_linear_model(attack, region):
    weight = images(4, n=1)[0] - 0.5
    image = images(5, n=1)
    mask = torch.ones_like(weight, dtype=torch.bool)
    if region is not None:
        attack = attack.inside(region)
        mask = region.mask(image)[0].expand_as(weight)
    for radius in (0.5, 3.0):
        gain = largest_gain(weight, image[0], radius, mask)
        for share, falls in ((0.92, True), (1.001, False)):
            model = Whole(weight, share * gain - float((weight * image[0]).sum()))
            labels = torch.ones(1, 5, 4, dtype=torch.int64)
            result = attack.with_radius(radius)(model, image, labels, seeds=[1])
            assert bool((result.predictions == 0).all()) == falls


def test_steps_follow_the_sparsity_of_the_best_iterate():
    centre = images(0, n=2)
    schedule = SparseSchedule(50, L1(radius=1.0), centre)
    best = centre.clone()
    best[0, 0, 0, :3] = 0  # 3 of 60 values
    best[1] = 0  # all values
    assert schedule.update(best, centre) is None  # 0.04 * 50 = 2 iterations
    assert schedule.update(best, centre).tolist() == [True, False]
    torch.testing.assert_close(schedule.density, torch.tensor([3 / 60 / 1.5, 1 / 1.5], dtype=torch.float64))
    schedule.update(best, centre)
    assert schedule.update(best, centre).tolist() == [False, False]


def test_apgd_is_stronger_than_pgd_and_sparser_than_linf():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 4, 3, padding=1)).double().eval()
    clean = images(7, n=4, size=(16, 16))
    labels = model(clean).argmax(1)
    apgd = APGD(threat=L1(radius=6.0), steps=40)(model, clean, labels, seeds=[1] * 4)
    pgd = PGD(threat=L1(radius=6.0), steps=40, keep='lowest_accuracy')(model, clean, labels, seeds=[1] * 4)
    assert apgd.accuracy.mean() <= pgd.accuracy.mean() < 1
    changed = (apgd.images != clean).double().mean()
    assert (
        changed < 0.5 < (APGD(threat=Linf(radius=0.01), steps=5)(model, clean, labels).images != clean).double().mean()
    )


@pytest.mark.parametrize('density', [0, -0.1, 1.5])
def test_a_density_out_of_range_is_refused(density):
    with pytest.raises(UserError, match=r'L1.density must be a finite number in \(0, 1\]'):
        L1(radius=1.0, density=density)
