import pytest
import torch
from toy_models import PixelLinear, batch, conv_net

from mmadv.attacks import L2, FastNewton, Linf, LogitMargin, PixelwiseFastNewton
from mmadv.errors import UserError
from mmadv.registry import ATTACKS, build


def test_lands_on_the_boundary_of_a_linear_model():
    """One pixel each: ε = (w·x + b) / |w|_1, and the gain at the result is zero (equations 11 and 8)."""
    weight = torch.tensor([0.8, -1.5, 0.4], dtype=torch.float64)
    images = torch.tensor([[0.5, 0.4, 0.5], [0.6, 0.3, 0.5]], dtype=torch.float64).view(2, 3, 1, 1)
    model, labels = PixelLinear(weight, 0.1), torch.ones(2, 1, 1, dtype=torch.int64)
    gain = images.flatten(1) @ weight + 0.1
    assert (gain > 0).all()
    result = FastNewton()(model, images, labels, ignore_index=255)
    step = (gain / weight.abs().sum()).view(2, 1, 1, 1)
    torch.testing.assert_close(result.images, images - step * weight.sign().view(1, 3, 1, 1))
    torch.testing.assert_close(result.images.flatten(1) @ weight + 0.1, torch.zeros(2, dtype=torch.float64))
    assert result.forward_passes.tolist() == [2, 2] and result.backward_passes.tolist() == [1, 1]


def test_equals_the_equations_written_out():
    """Equations 14, 17 to 19, one image at a time, with autograd on the mean gain over labelled pixels."""
    model, (images, labels) = conv_net(0).eval(), batch(0)
    labels = torch.where(labels == 255, 255, model(images).argmax(1))  # most pixels right, some void
    actual = FastNewton()(model, images, labels).images
    for n in range(len(images)):
        x = images[n : n + 1].clone().requires_grad_()
        logits = model(x)[0]
        gains = []
        for h in range(labels.shape[1]):
            for w in range(labels.shape[2]):
                y = int(labels[n, h, w])
                if y != 255:
                    others = torch.cat([logits[:y, h, w], logits[y + 1 :, h, w]])
                    gains.append(logits[y, h, w] - others.max())
        gain = torch.stack(gains).mean()
        (gradient,) = torch.autograd.grad(gain, x)
        expected = (x - gain / gradient.abs().sum() * gradient.sign()).clamp(0, 1).detach()
        torch.testing.assert_close(actual[n : n + 1], expected)


@pytest.mark.parametrize('max_radius', [None, '8/255'])
def test_the_average_over_pixels_equals_equation_16_written_out(max_radius):
    """Equations 11, 14 and 16: an adversarial image for every labelled pixel, and their mean."""
    model, (images, labels) = conv_net(0).eval(), batch(0, n=2, size=(4, 5))
    some = torch.rand(labels.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    labels = torch.where((labels == 255) | some, labels, model(images).argmax(1))
    limit = 8 / 255 if max_radius else float('inf')
    result = PixelwiseFastNewton(max_radius=max_radius)(model, images, labels)
    for n in range(2):
        adversarial, fooled = [], 0
        for h, w in (labels[n] != 255).nonzero().tolist():
            x = images[n : n + 1].clone().requires_grad_()
            logits, y = model(x)[0, :, h, w], int(labels[n, h, w])
            gain = logits[y] - torch.cat([logits[:y], logits[y + 1 :]]).max()
            (gradient,) = torch.autograd.grad(gain, x)
            fooled += bool(gain <= 0)
            step = min(float(gain.detach() / gradient.abs().sum()), limit) if gain > 0 else 0.0
            adversarial.append((x - step * gradient.sign()).clamp(0, 1).detach())
        assert 0 < fooled < len(adversarial)
        torch.testing.assert_close(result.images[n], torch.cat(adversarial).mean(0))
        assert result.backward_passes[n] == len(adversarial)


def test_the_average_over_pixels_is_fast_newton_for_one_pixel():
    images = torch.rand(3, 3, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model, labels = PixelLinear([1.0, -2.0, 0.5], 0.7), torch.ones(3, 1, 1, dtype=torch.int64)
    expected = FastNewton()(model, images, labels).images
    assert (expected != images).any()
    torch.testing.assert_close(PixelwiseFastNewton()(model, images, labels).images, expected)


@pytest.mark.filterwarnings('ignore:the outputs of the model are not negative and sum to 1:UserWarning')
def test_stays_clean_where_the_step_is_not_defined():
    images = torch.full((1, 3, 1, 1), 0.5, dtype=torch.float64)
    labels = torch.ones(1, 1, 1, dtype=torch.int64)
    fooled = PixelLinear([1.0, 1.0, 1.0], -2.0)  # mean gain -0.5
    assert torch.equal(FastNewton()(fooled, images, labels).images, images)
    flat = PixelLinear([0.0, 0.0, 0.0], 1.0)  # mean gain 1, gradient 0
    assert torch.equal(FastNewton()(flat, images, labels).images, images)


def test_cap_and_range():
    images = torch.full((1, 3, 1, 1), 0.5, dtype=torch.float64)
    labels = torch.ones(1, 1, 1, dtype=torch.int64)
    steep = PixelLinear([0.01, 0.01, 0.01], 1.0)  # ε would be about 33
    assert torch.equal(FastNewton()(steep, images, labels).images, torch.zeros_like(images))
    capped = FastNewton(max_radius='4/255')
    torch.testing.assert_close(capped(steep, images, labels).images, images - 4 / 255)
    assert capped.threat == Linf(radius='4/255') and FastNewton().with_radius('4/255') == capped
    assert build(capped.describe(), ATTACKS) == capped


def test_margin_is_the_negative_gain():
    logits = torch.tensor([2.0, 0.5, -1.0]).view(1, 3, 1, 1)
    for label, margin in ((0, -1.5), (1, 1.5), (2, 3.0)):
        assert LogitMargin()(logits, torch.full((1, 1, 1), label)).item() == margin


def test_refuses_what_it_has_not():
    with pytest.raises(UserError, match='takes one step; found steps=3'):
        FastNewton().with_steps(3)
    with pytest.raises(UserError, match='needs a Linf threat; found L2'):
        FastNewton().with_threat(L2(radius=0.1))
    with pytest.raises(UserError, match="'-1' is negative"):
        FastNewton(max_radius=-1)
