"""The registered losses against closed forms and against torch's own functions."""

import math

import pytest
import torch
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS

from mmadv.errors import UserError
from mmadv.models import JensenShannonLoss, KLDivergenceLoss


def scores(seed=0, n=2, classes=4, size=(3, 5)):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, classes, *size, generator=generator, dtype=torch.float64) * 3
    labels = torch.randint(0, classes, (n, *size), generator=generator)
    labels[0, 0, :2] = 255
    return logits, labels


def naive_js(logits, labels):
    """Sum over the classes of (p log(p/m) + q log(q/m)) / 2 with q one-hot and m the mean of both, per valid pixel."""
    total = []
    for logit, label in zip(logits.permute(0, 2, 3, 1).reshape(-1, logits.shape[1]), labels.flatten(), strict=True):
        if label != 255:
            p = logit.softmax(0)
            q = torch.nn.functional.one_hot(label, len(p)).to(p)
            m = (p + q) / 2
            total.append((torch.xlogy(p, p / m) + torch.xlogy(q, q / m)).sum() / 2)
    return torch.stack(total)


def test_js_is_the_mean_divergence_over_the_pixels_that_count():
    logits, labels = scores()
    expected = naive_js(logits, labels)
    torch.testing.assert_close(JensenShannonLoss()(logits, labels), expected.mean())
    torch.testing.assert_close(JensenShannonLoss(loss_weight=0.4)(logits, labels), 0.4 * expected.mean())
    weights = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
    weighted = (weights[labels[labels != 255]] * expected).mean()
    torch.testing.assert_close(JensenShannonLoss(class_weight=weights.tolist())(logits, labels), weighted)
    sampled = (labels == 1).double()
    counted = (expected * (labels[labels != 255] == 1)).mean()
    torch.testing.assert_close(JensenShannonLoss()(logits, labels, weight=sampled), counted)


def test_js_is_bounded_and_its_gradient_finite():
    logits = torch.tensor([[60.0, -60.0], [500.0, -500.0], [0.0, 0.0]]).T.reshape(1, 2, 1, 3).requires_grad_()
    labels = torch.ones(1, 1, 3, dtype=torch.int64)
    loss = JensenShannonLoss()(logits, labels)
    half = math.log(2) + (0.5 * math.log(0.5) - 1.5 * math.log(1.5)) / 2
    assert loss.item() == pytest.approx((2 * math.log(2) + half) / 3, rel=1e-6)
    loss.backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize('ignore_index', [255, 2])
def test_ignored_pixels_give_no_loss_and_no_gradient(ignore_index):
    logits, labels = scores(1)
    labels[labels == 255] = ignore_index
    ignored = labels == ignore_index
    other = torch.where(ignored.unsqueeze(1), logits * -5 + 1, logits)
    clean = logits.flip(0)
    for loss in (
        lambda x: JensenShannonLoss()(x, labels, ignore_index=ignore_index),
        lambda x: KLDivergenceLoss()(x, clean, labels, ignore_index=ignore_index),
    ):
        assert torch.equal(loss(logits), loss(other))
        (gradient,) = torch.autograd.grad(loss(x := logits.clone().requires_grad_()), x)
        assert not gradient.permute(0, 2, 3, 1)[ignored].any() and gradient.any()
        labels_before = labels.clone()
        labels.fill_(ignore_index)
        assert float(loss(logits)) == 0
        labels.copy_(labels_before)


def test_kl_is_torchs_with_the_clean_prediction_first():
    clean, labels = scores(2)
    logits = scores(3)[0].requires_grad_()
    clean.requires_grad_()
    loss = KLDivergenceLoss(loss_weight=6.0)(logits, clean, labels)
    pixels = torch.nn.functional.kl_div(
        logits.log_softmax(1), clean.log_softmax(1), log_target=True, reduction='none'
    ).sum(1)
    torch.testing.assert_close(loss, 6 * pixels[labels != 255].mean())
    # Two classes: KL of Bernoulli(p) from Bernoulli(q).
    p, q = 0.8, 0.3
    two = [torch.tensor([math.log(1 - s), math.log(s)]).view(1, 2, 1, 1) for s in (q, p)]
    closed = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    assert float(KLDivergenceLoss()(*two, torch.zeros(1, 1, 1, dtype=torch.int64))) == pytest.approx(closed, rel=1e-5)
    # d KL / d adversarial logits = (q - p) / valid pixels; d KL / d clean logits = p (log p/q - KL) / valid pixels.
    p, q = clean.detach().softmax(1), logits.detach().softmax(1)
    valid = (labels != 255).unsqueeze(1)
    by_logits, by_clean = torch.autograd.grad(loss, (logits, clean))
    torch.testing.assert_close(by_logits, 6 * torch.where(valid, q - p, 0) / valid.sum())
    slope = p * ((p / q).log() - pixels.detach().unsqueeze(1))
    torch.testing.assert_close(by_clean, 6 * torch.where(valid, slope, 0) / valid.sum())


def test_half_precision_is_computed_in_float32():
    logits, labels = scores(4)
    clean = scores(5)[0]
    for loss, parts in ((JensenShannonLoss(), [logits]), (KLDivergenceLoss(), [logits, clean])):
        half = [part.bfloat16() for part in parts]
        assert torch.equal(loss(*half, labels), loss(*[part.float() for part in half], labels))


def test_are_registered_and_train_a_head(build_model, make_batch):
    with DefaultScope.overwrite_default_scope('mmseg'):
        loss = MODELS.build(dict(type='JensenShannonLoss', class_weight=[1.0] * 5))
        assert isinstance(MODELS.build(dict(type='KLDivergenceLoss', loss_weight=2.0)), KLDivergenceLoss)
    model = build_model('fcn').train()
    model.decode_head.loss_decode = loss
    losses = model.loss(**model.data_preprocessor(make_batch([(24, 24)] * 2), True))
    total, _ = model.parse_losses(losses)
    assert torch.equal(total, losses['decode.loss_js']) and 0 < total < math.log(2)
    total.backward()
    assert model.backbone.stem[0].weight.grad.any()


def test_mistakes_get_a_sentence():
    logits, labels = scores()
    with pytest.raises(UserError, match='class_weight must hold 4 numbers; found 3'):
        JensenShannonLoss(class_weight=[1, 1, 1])(logits, labels)
    with pytest.raises(UserError, match='at least 2 output channels; found 1'):
        JensenShannonLoss()(logits[:, :1], labels)
