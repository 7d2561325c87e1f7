"""Patches: pasting, its gradient, the optimum of a linear model, and what is drawn from which seed."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image

from mmadv.attacks import PGD, Box, Linf, Objective, Patch, Restarts, TrainingBatch, UniversalPatch, WorstCase, preset
from mmadv.attacks.attack_context import NonFiniteGradient
from mmadv.attacks.pasting import Placement, masks, paste, texture_gradient
from mmadv.attacks.patch import random_textures
from mmadv.errors import UserError
from mmadv.registry import ATTACKS, build

SMALL = dict(size=(3, 4), scale=(0.3, 0.6), steps=5)


def images_of(number, size=(8, 10), seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(number, 3, *size, generator=draw, dtype=torch.float64)


def model(images):
    """Three classes whose logits depend on all pixels of an image, and differ from pixel to pixel."""
    mean = images.mean((2, 3), keepdim=True)
    return torch.cat([images[:, :1], 2 * mean[:, 1:2] + 0 * images[:, :1], images[:, 2:] * mean[:, :1]], 1) * 4


def test_a_texture_at_its_own_size_is_written_over_the_rectangle():
    images, textures = images_of(2), images_of(2, (3, 4), seed=1)
    places = [Placement(2, 5, 3, 4, 1.0), Placement(5, 0, 3, 4, 0.5)]
    expected = images.clone()
    expected[0, :, 2:5, 5:9] = textures[0]
    expected[1, :, 5:8, 0:4] = 0.5 * textures[1]
    assert torch.equal(paste(images, textures, places), expected)
    assert masks(images, places).sum((1, 2, 3)).tolist() == [12, 12]
    bright = paste(images, textures[:1], [Placement(0, 0, 3, 4, 1.5)] * 2)
    assert torch.equal(bright[1, :, :3, :4], (1.5 * textures[0]).clamp(max=1))


@pytest.mark.parametrize(('height', 'width'), [(6, 8), (5, 3), (2, 9)])
def test_other_sizes_are_those_of_pillow(height, width):
    images, textures = images_of(1, (12, 14)), images_of(1, (3, 4), seed=1)
    pasted = paste(images, textures, [Placement(1, 2, height, width, 1.0)])[0, :, 1 : 1 + height, 2 : 2 + width]
    for ours, channel in zip(pasted, textures[0], strict=True):
        picture = Image.fromarray(channel.numpy().astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(ours.numpy(), np.asarray(picture), atol=2e-6)


def test_the_gradient_of_pasting_is_that_of_finite_differences():
    images, textures = images_of(2), images_of(2, (3, 4), seed=1)
    places = [Placement(1, 2, 5, 6, 1.3), Placement(0, 0, 2, 3, 0.9)]
    weights = images_of(2, seed=2)
    gradient = texture_gradient(images, textures, places, weights)
    step = 1e-6
    for n, channel, row, column in [(0, 0, 0, 0), (0, 2, 1, 3), (1, 1, 2, 2), (1, 0, 0, 3)]:
        moved = torch.zeros_like(textures)
        moved[n, channel, row, column] = step
        ends = [(weights * paste(images, textures + sign * moved, places)).sum() for sign in (1, -1)]
        numeric = float(ends[0] - ends[1]) / (2 * step)
        assert float(gradient[n, channel, row, column]) == pytest.approx(numeric, abs=1e-8)


@dataclass(frozen=True, kw_only=True)
class Lead(Objective):
    """The lead of the best other class: linear in the logits of two classes."""

    def _loss(self, scores, progress):
        return scores.rival_logit - scores.label_logit


def test_finds_the_best_patch_of_a_linear_model_over_all_places():
    """The score is linear in the patch, so the best texture is 0 or 1 by the sign of the weights' mean over places."""
    height, width, side = 9, 11, 3
    rows, columns = torch.meshgrid(torch.arange(9.0), torch.arange(11.0), indexing='ij')
    pattern = torch.where((rows + columns) % 2 == 0, 1.0, -1.0)  # has no mean: the rest of the weights decides
    weights = torch.stack([rows - 3.6, 5.4 - columns, rows + columns - 9.4]) + pattern

    def linear(images):
        score = (weights.to(images) * images).sum((1, 2, 3)).view(-1, 1, 1, 1).expand(-1, 1, height, width)
        return torch.cat([-score, score], 1)

    places = [(top, left) for top in range(height - side + 1) for left in range(width - side + 1)]
    mean = torch.stack([weights[:, top : top + side, left : left + side] for top, left in places]).mean(0)
    expected = (mean < 0).double()
    images, labels = images_of(16, (height, width)), torch.ones(16, height, width, dtype=torch.int64)
    attack = UniversalPatch(size=(side, side), scale=(1 / 3, 1 / 3), brightness=(0.8, 1), steps=60, objective=Lead())
    trained = attack.train([[TrainingBatch(linear, images, labels)]] * 60, seed=0)
    clear = mean.abs() > 0.5
    assert clear.float().mean() > 0.6
    assert torch.equal(trained.texture[clear].double(), expected[clear])
    lost = [(mean * texture).sum() for texture in (trained.texture, expected)]
    assert float(lost[0]) == pytest.approx(float(lost[1]), rel=0.05)
    # A patch of its own for each image sees one draw at a step.
    own = Patch(size=(side, side), scale=(1 / 3, 1 / 3), brightness=(0.8, 1), steps=150, objective=Lead())
    result = own(linear, images[:1], labels[:1], seeds=[1])
    (place,) = own.placements((height, width), [1])
    patch = result.images[0, :, place.top : place.top + side, place.left : place.left + side] / place.brightness
    assert float((mean * patch).sum()) < 0.5 * float(lost[1])  # random textures: 0 on average


def test_draws_are_uniform_and_inside_the_image():
    attack = Patch(size=(8, 4), scale=(0.25, 0.5), brightness=(0.5, 1.5))
    places = attack.placements((40, 60), range(600))
    heights, brightness = (torch.tensor([getattr(one, name) for one in places]).double() for name in
                           ('height', 'brightness'))  # fmt: skip
    assert (heights.min(), heights.max()) == (10, 20) and abs(heights.mean() - 15) < 0.5
    assert all(abs(one.width - one.height / 2) <= 0.5 for one in places)
    assert abs(brightness.mean() - 1) < 0.05 and brightness.min() < 0.52 and brightness.max() > 1.48
    assert all(0 <= one.top <= 40 - one.height and 0 <= one.left <= 60 - one.width for one in places)
    assert min(one.top for one in places) == 0 and max(one.top + one.height for one in places) == 40
    assert min(one.left for one in places) == 0 and max(one.left + one.width for one in places) == 60


def test_only_the_rectangle_changes_and_no_image_depends_on_its_batch():
    images, attack = images_of(3), Patch(**SMALL)
    labels = model(images).argmax(1)
    labels[1] = 255  # not attacked
    labels[2, :, :5] = 255
    whole = attack(model, images, labels, seeds=[5, 6, 7])
    places = attack.placements((8, 10), [5, 6, 7])
    changed = (whole.images != images).any(1, keepdim=True)
    assert torch.equal(whole.images[1], images[1])
    assert torch.equal(changed[[0, 2]], masks(images, places)[[0, 2]])
    for n in (0, 2):
        alone = attack(model, images[n : n + 1], labels[n : n + 1], seeds=[5 + n])
        assert torch.equal(alone.images[0], whole.images[n])
        assert (alone.forward_passes.item(), alone.backward_passes.item()) == (6, 5)
    again = attack(model, images, labels, seeds=[5, 8, 9])
    assert torch.equal(again.images[0], whole.images[0]) and not torch.equal(again.images[2], whole.images[2])


def test_the_pixels_under_a_patch_are_in_no_gradient():
    """A model of each pixel by itself: outside the patch nothing can change, so the texture stays as it began."""
    images = images_of(2)
    labels = (4 * images).argmax(1)
    places = Patch(**SMALL).placements((8, 10), [1, 2])
    result = Patch(**SMALL)(lambda x: 4 * x, images, labels, seeds=[1, 2])
    textures = (random_textures(images, (3, 4), [1, 2]) * 255).round() / 255
    assert torch.equal(result.images, paste(images, textures, places))


def test_a_trained_patch_is_printable_and_beats_random_ones():
    images = images_of(12, (12, 12))
    labels = model(images).argmax(1)
    parts = [TrainingBatch(model, images[n : n + 4], labels[n : n + 4]) for n in (0, 4, 8)]
    batches = [[parts[n % 3]] for n in range(30)]
    attack = UniversalPatch(size=(4, 4), scale=(0.4, 0.5), steps=30)
    trained = attack.train(batches, seed=3)
    assert torch.equal(trained.texture, attack.train(batches, seed=3).texture)
    assert not torch.equal(trained.texture, attack.train(batches, seed=4).texture)
    levels = trained.texture * 255
    torch.testing.assert_close(levels, levels.round())
    seeds = range(12)
    rest = torch.where(masks(images, trained.placements((12, 12), seeds))[:, 0], 255, labels)
    random = [attack.with_texture(random_textures(images, (4, 4), [n])[0]) for n in range(3)]
    accuracy, *others = (one(model, images, rest, seeds=seeds).accuracy.mean() for one in (trained, *random))
    assert accuracy < min(others) - 0.05
    assert trained(model, images, rest, seeds=seeds).backward_passes.sum() == 0
    given = attack.with_texture(torch.rand(3, 5, 7))
    assert given.size == (5, 7) and given.placements((40, 40), [0])[0].width > given.placements((40, 40), [0])[0].height


@pytest.mark.parametrize('kind', [Patch, UniversalPatch])
def test_parameters_survive(kind):
    attack = kind(**SMALL)
    assert build(attack.describe(), ATTACKS) == attack
    assert attack.with_radius('1') is attack and attack.with_steps(7).steps == 7
    assert preset('patch', '1', 9) == Patch(steps=9)


class Sick(torch.nn.Module):
    def forward(self, images):
        logits = model(images)
        return logits + (logits * 0).square().sum(1, keepdim=True).sqrt()


def test_refused():
    images, attack = images_of(2), Patch(**SMALL)
    labels = model(images).argmax(1)
    for call, message in (
        (lambda: attack.with_radius('8/255'), 'Patch: a patch may have any colour, so its threat model is Linf with'),
        (lambda: attack.inside(Box(top=0, left=0, height=1, width=0.5)), 'draws the place of the patch itself'),
        (lambda: Restarts(attack=attack), 'Restarts: Patch draws the pixels .* so it cannot be a part of another'),
        (lambda: WorstCase(attacks={'a': attack}), 'WorstCase: Patch draws the pixels'),
        (lambda: Patch(scale=(0.5, 0.2)), 'scale must give the smaller number first; found 0.5, 0.2'),
        (lambda: Patch(brightness=(2, 1)), 'brightness must give the smaller number first; found 2, 1'),
        (lambda: Patch(steps=0), 'steps must be a positive integer'),
        (lambda: attack(model, images, labels, start=images), 'Patch: takes no start'),
        (lambda: UniversalPatch()(model, images, labels), 'the patch is not trained; call its method train first'),
        (lambda: UniversalPatch().with_texture(torch.full((3, 4, 4), 2.0)), r'a texture must be in \[0, 1\]'),
        (
            lambda: UniversalPatch().with_texture(torch.rand(1, 4, 4))(model, images, labels),
            'a patch of 1 channels does not fit images of 3 channels',
        ),
        (lambda: preset('patch', '8/255'), 'so its threat model is Linf with radius 1; found Linf with radius 0.03'),
    ):
        with pytest.raises(UserError, match=message):
            call()
    with pytest.raises(NonFiniteGradient, match='for image 0 of the batch at iteration 0'):
        attack(Sick(), images, labels)
    assert attack.threat == Linf(radius=1) and PGD(threat=attack.threat).threat == attack.threat
