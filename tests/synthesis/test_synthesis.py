"""Synthesis on models whose optimum is known, and quality against naive loops."""

import math

import pytest
import torch
from torch import nn

from mmadv.attacks import L2, Linf
from mmadv.errors import UserError
from mmadv.robustness import SmoothedModel
from mmadv.synthesis import (
    ClassGaussian,
    Descent,
    ball,
    corrupt,
    generate,
    inpaint,
    mean_absolute_error,
    move_to_class,
    psnr,
    ssim,
)


class Brightness(nn.Module):
    """Class 1 where a pixel's channels exceed one half in the mean, class 0 elsewhere."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(20.0))
        self.drop = nn.Dropout(0.5)

    def forward(self, images):
        score = self.scale * (images.mean(1) - 0.5)
        return torch.stack([-score, self.drop(score)], 1)


def box(n=1, size=(8, 8), where=(slice(2, 6), slice(1, 5))):
    mask = torch.zeros(n, 1, *size, dtype=torch.bool)
    mask[:, :, where[0], where[1]] = True
    return mask


def test_corrupted_pixels_have_the_mean_of_their_channel():
    images, mask = torch.rand(2, 3, 8, 8), box(2)
    actual = corrupt(images, mask)
    assert torch.equal(actual[:, :, ~mask[0, 0]], images[:, :, ~mask[0, 0]])
    for n in range(2):
        for c in range(3):
            assert float((actual[n, c][mask[n, 0]] - images[n, c].mean()).abs().max()) < 1e-6


def test_inpainting_paints_the_box_as_labelled_and_the_penalty_keeps_the_rest():
    model = Brightness().train()
    labels = torch.zeros(1, 8, 8, dtype=torch.int64)
    labels[:, 2:6] = 1
    images = torch.where(labels[:, None] == 1, 0.52, 0.48).expand(1, 3, 8, 8)
    mask = box()
    seen = []
    painted = inpaint(
        model,
        images,
        labels,
        mask,
        descent=Descent(steps=60, step_size=0.2),
        penalty=1.0,
        callback=lambda step, images, losses: seen.append((step, float(losses))),
    )
    inside = painted[0].mean(0)[mask[0, 0]]
    assert float(inside.min()) > 0.55  # the labels of the whole box are class 1
    change = (painted - images)[0, :, ~mask[0, 0]].flatten()
    free = inpaint(model, images, labels, mask, descent=Descent(steps=60, step_size=0.2), penalty=0.0)
    unbound = (free - images)[0, :, ~mask[0, 0]].flatten()
    assert float(change.norm()) < float(unbound.norm()) / 2
    assert [step for step, _ in seen] == list(range(60)) and min(loss for _, loss in seen) < seen[0][1]
    assert model.training and model.scale.requires_grad and model.scale.grad is None
    assert float(painted.min()) >= 0 and float(painted.max()) <= 1


def test_the_loss_of_inpainting_is_equation_6():
    model, images = Brightness().eval(), torch.rand(1, 3, 8, 8)
    labels, mask = torch.randint(0, 2, (1, 8, 8)), box()
    labels[0, 0] = 255
    losses, iterates = [], []

    def callback(step, images, loss):
        iterates.append(images)
        losses.append(float(loss))

    inpaint(model, images, labels, mask, descent=Descent(steps=3, step_size=0.3), penalty=0.7, callback=callback)
    for iterate, loss in zip(iterates, losses, strict=True):
        logits = model(iterate)[0].permute(1, 2, 0)[labels[0] != 255]
        entropy = nn.functional.cross_entropy(logits, labels[0][labels[0] != 255])
        change = math.sqrt(float(((images - iterate) * ~mask).square().sum()))
        assert loss == pytest.approx(float(entropy.detach()) + 0.7 * change, rel=1e-5)


def test_generation_starts_from_plain_colours_and_ends_at_the_labels():
    labels = torch.zeros(1, 8, 8, dtype=torch.int64)
    labels[:, :, 3:] = 1
    first = []
    made = generate(
        Brightness(),
        torch.tensor([[0.2, 0.5, 0.8]]),
        labels,
        (8, 8),
        descent=Descent(steps=80, step_size=0.3),
        callback=lambda step, images, losses: first.append(images),
    )
    assert torch.equal(first[0], torch.tensor([0.2, 0.5, 0.8]).view(1, 3, 1, 1).expand(1, 3, 8, 8))
    assert torch.equal(Brightness().eval()(made).argmax(1), labels)


@pytest.mark.parametrize('objective', ['mean_logit', 'cross_entropy'])
@pytest.mark.parametrize('threat', [L2(radius=1.0), Linf(radius=0.1)], ids=repr)
def test_targets_are_reached_as_far_as_the_ball_lets(objective, threat):
    images = torch.full((2, 3, 4, 4), 0.45)
    classes = torch.tensor([1, 0])
    step = 0.1 * threat.radius
    made = move_to_class(
        Brightness(),
        images,
        classes,
        descent=Descent(steps=30, step_size=step, threat=threat),
        objective=objective,
    )
    # The mean of all pixels is linear: the optimum lies at the border of the ball, the same in every pixel.
    reach = threat.radius if isinstance(threat, Linf) else threat.radius / math.sqrt(3 * 4 * 4)
    torch.testing.assert_close(made[0], images[0] + reach, atol=1e-3, rtol=0)
    assert float(made[1].mean()) < 0.45 - 0.9 * reach


def test_smoothed_models_are_synthesised_with_too():
    images = torch.full((1, 3, 6, 6), 0.3)
    smoothed = SmoothedModel(Brightness(), sigma=0.3, samples=5, output='mean_logits')
    made = move_to_class(smoothed, images, torch.tensor([1]), descent=Descent(steps=10, step_size=0.5))
    assert float(made.mean()) > 0.5


def test_samples_have_the_mean_and_the_covariance_of_the_class():
    generator = torch.Generator().manual_seed(0)
    images = 0.5 + 0.05 * torch.randn(6, 1, 2, 2, generator=generator, dtype=torch.float64)
    gaussian = ClassGaussian.fit(images)
    drawn = gaussian.sample(range(20000)).flatten(1)
    torch.testing.assert_close(drawn.mean(0), images.flatten(1).mean(0), atol=2e-3, rtol=0)
    torch.testing.assert_close(drawn.T.cov(), images.flatten(1).T.cov(), atol=2e-4, rtol=0)
    assert torch.equal(gaussian.sample([4]), gaussian.sample([3, 4])[1:])
    assert float(ClassGaussian.fit(torch.rand(3, 1, 4, 4)).sample(range(50)).min()) >= 0


def naive_ssim(image, other, mask):
    """Window by window in plain Python, mirrored at the border."""
    height, width = image.shape
    weights = [[math.exp(-(i * i + j * j) / 4.5) for j in range(-5, 6)] for i in range(-5, 6)]
    total = sum(map(sum, weights))

    def at(values, y, x):
        y, x = abs(y), abs(x)
        return float(values[min(y, 2 * height - 2 - y), min(x, 2 * width - 2 - x)])

    windows = []
    for y, x in mask.nonzero().tolist():
        window = [
            (weights[i + 5][j + 5] / total, at(image, y + i, x + j), at(other, y + i, x + j))
            for i in range(-5, 6)
            for j in range(-5, 6)
        ]
        a, b = sum(w * p for w, p, _ in window), sum(w * q for w, _, q in window)
        aa = sum(w * (p - a) ** 2 for w, p, _ in window)
        bb = sum(w * (q - b) ** 2 for w, _, q in window)
        ab = sum(w * (p - a) * (q - b) for w, p, q in window)
        windows.append((2 * a * b + 1e-4) * (2 * ab + 9e-4) / ((a * a + b * b + 1e-4) * (aa + bb + 9e-4)))
    return sum(windows) / len(windows)


def test_quality_agrees_with_naive_loops():
    generator = torch.Generator().manual_seed(1)
    images, other = (torch.rand(2, 2, 12, 13, generator=generator, dtype=torch.float64) for _ in range(2))
    mask = box(2, (12, 13), (slice(0, 3), slice(9, 13)))
    difference = (images - other)[:, :, 0:3, 9:13].flatten(1)
    torch.testing.assert_close(psnr(images, other, mask), -10 * torch.log10(difference.square().mean(1)))
    torch.testing.assert_close(mean_absolute_error(images, other, mask), difference.abs().mean(1))
    expected = [sum(naive_ssim(images[n, c], other[n, c], mask[n, 0]) for c in range(2)) / 2 for n in range(2)]
    torch.testing.assert_close(ssim(images, other, mask), torch.tensor(expected, dtype=torch.float64))
    assert ssim(images, images, mask).tolist() == pytest.approx([1, 1]) and math.isinf(psnr(images, images, mask)[0])


@pytest.mark.parametrize(
    ('call', 'match'),
    [
        (lambda: Descent(steps=0), 'Descent.steps must be an integer at least 1; found 0'),
        (lambda: Descent(step_size=0), 'step_size 0 moves nothing'),
        (lambda: ball('L1', 1), "unknown norm 'L1'"),
        (
            lambda: corrupt(torch.rand(1, 3, 8, 8), box(size=(6, 6))),
            r'mask must be of shape \(N, 1, h, w\) with h = 8, as images',
        ),
        (lambda: corrupt(torch.rand(1, 3, 8, 8), box() & False), 'covers no pixel'),
        (lambda: ClassGaussian.fit(torch.rand(1, 3, 4, 4)), 'at least two images of the class; found 1'),
        (
            lambda: inpaint(
                Brightness(), torch.rand(1, 3, 8, 8), torch.zeros(1, 4, 4).long(), box(), descent=Descent()
            ),
            'must be of the size of the logits',
        ),
        (
            lambda: inpaint(
                Brightness(), torch.rand(1, 3, 8, 8), torch.zeros(1, 8, 8).long(), box(), descent=Descent(), penalty=-1
            ),
            'penalty must be a finite number at least 0; found -1',
        ),
        (
            lambda: move_to_class(
                Brightness(), torch.rand(1, 3, 4, 4), torch.tensor([1]), descent=Descent(), objective='ce'
            ),
            "'mean_logit' or 'cross_entropy'; found 'ce'",
        ),
        (
            lambda: move_to_class(
                lambda images: images / 0, torch.rand(1, 3, 4, 4), torch.tensor([1]), descent=Descent()
            ),
            'not finite at step 0',
        ),
    ],
)
def test_what_makes_no_sense_is_named(call, match):
    with pytest.raises(UserError, match=match):
        call()
