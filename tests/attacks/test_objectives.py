import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmadv.attacks import (
    AnnealedMargin,
    BalancedCrossEntropy,
    CosineCrossEntropy,
    CrossEntropy,
    JensenShannon,
    KullbackLeibler,
    LogitMargin,
    MaskedBalancedCrossEntropy,
    MaskedCrossEntropy,
    MaskedImageBalancedCrossEntropy,
    MaskedSpherical,
    Tsallis,
)
from mmadv.attacks.pixel_scores import PixelScores
from mmadv.errors import UserError

KINDS = [
    CrossEntropy,
    BalancedCrossEntropy,
    CosineCrossEntropy,
    JensenShannon,
    MaskedCrossEntropy,
    MaskedImageBalancedCrossEntropy,
    LogitMargin,
    MaskedSpherical,
    Tsallis,
]
ALL = [kind(targeted=targeted) for kind in KINDS for targeted in (False, True)]
ALL += [CosineCrossEntropy(squash='softmax', targeted=targeted) for targeted in (False, True)]
WEIGHTS = (0.25, 2.0, 0.0625, 0.5, 1.5)
ALL += [MaskedBalancedCrossEntropy(class_weights=WEIGHTS, targeted=targeted) for targeted in (False, True)]
# Their values are tested in test_annealed_margin.py.
MARGINS = [
    AnnealedMargin(squash=squash, rival=rival, targeted=targeted)
    for squash in ('atan', 'sigmoid')
    for rival in ('logsumexp', 'max')
    for targeted in (False, True)
]


def of_classes(objective, number):
    """Returns the objective with as many class weights as there are classes, if it has any."""
    if not isinstance(objective, MaskedBalancedCrossEntropy):
        return objective
    return replace(objective, class_weights=WEIGHTS[:number])


def naive(objective, u, y, progress, weight):
    """One pixel, from the definitions, in plain floats."""
    exponentials = [math.exp(v) for v in u]
    p = [e / sum(exponentials) for e in exponentials]
    ce = -math.log(p[y])
    hit = int(np.argmax(u)) == y
    pending = not hit if objective.targeted else hit
    sign = -1 if objective.targeted else 1
    if isinstance(objective, BalancedCrossEntropy):
        share = progress / 2
        return sign * ((1 - share) if pending else share) * ce
    if isinstance(objective, CosineCrossEntropy):
        squashed = p if objective.squash == 'softmax' else [1 / (1 + math.exp(-v)) for v in u]
        cosine = squashed[y] / math.sqrt(sum(s * s for s in squashed))
        return sign * ((1 - cosine) if objective.targeted else cosine) * ce
    if isinstance(objective, JensenShannon):
        q = [float(k == y) for k in range(len(u))]
        m = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
        divergence = sum(a * math.log(a / c) for a, c in zip(p, m, strict=True))
        divergence += sum(b * math.log(b / c) for b, c in zip(q, m, strict=True) if b > 0)
        return sign * divergence / 2
    if isinstance(objective, Tsallis):
        q = -2 + 3 * progress
        # 1 - p^(1 - q), without its cancellation near q = 1.
        return sign * (ce if q == 1 else -math.expm1(-(1 - q) * ce) / (1 - q))
    if isinstance(objective, LogitMargin):
        return sign * (max(v for k, v in enumerate(u) if k != y) - u[y])
    if isinstance(objective, MaskedSpherical):
        return sign * -u[y] / math.sqrt(sum(v * v for v in u)) * pending
    if isinstance(objective, MaskedBalancedCrossEntropy):
        return sign * ce * pending * WEIGHTS[y]
    if isinstance(objective, MaskedImageBalancedCrossEntropy):
        return sign * ce * pending * weight
    if isinstance(objective, MaskedCrossEntropy):
        return sign * ce * pending
    return sign * ce


@pytest.mark.parametrize('objective', ALL, ids=repr)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), progress=st.floats(0, 1))
def test_equals_the_definition_pixel_by_pixel(objective, seed, progress):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, 3, 2, 3, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (2, 2, 3), generator=generator)
    labels[1, 0, 1] = 255
    actual = of_classes(objective, 3)(logits, labels, progress=progress)
    for n in range(2):
        flat = labels[n][labels[n] != 255].tolist()
        for h in range(2):
            for w in range(3):
                y = int(labels[n, h, w])
                if y == 255:
                    assert actual[n, h, w] == 0
                    continue
                weight = len(flat) / (len(set(flat)) * flat.count(y))
                expected = naive(objective, logits[n, :, h, w].tolist(), y, progress, weight)
                assert float(actual[n, h, w]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize('objective', ALL + MARGINS, ids=repr)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize('scale', [0.0, 1e-30, 1.0, 1e4, 1e30, 'max'])
def test_value_and_gradient_are_finite_for_logits_of_any_size(objective, dtype, scale):
    objective = of_classes(objective, 3)
    scale = torch.finfo(dtype).max if scale == 'max' else scale
    signs = torch.tensor([[1.0, -1.0, 0.5], [-1.0, 1.0, -1.0], [1.0, 1.0, 1.0], [-1.0, -1.0, -1.0], [0.0, 0.0, 1.0]])
    logits = (signs.to(dtype) * scale).T.reshape(1, 3, 5, 1).repeat(1, 1, 1, 3).requires_grad_()
    labels = torch.tensor([0, 1, 2]).expand(1, 5, 3)
    value = objective(logits, labels, progress=0.5)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert value.isfinite().all() and gradient.isfinite().all()


@pytest.mark.parametrize('objective', ALL + MARGINS, ids=repr)
def test_ignored_pixels_are_exactly_zero_in_value_and_gradient(objective):
    objective = of_classes(objective, 4)
    logits = (100 * torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))).requires_grad_()
    labels = torch.randint(0, 4, (2, 6, 6), generator=torch.Generator().manual_seed(1))
    labels[:, :3] = 255
    value = objective(logits, labels, progress=0.3)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert (value[:, :3] == 0).all() and (gradient[:, :, :3] == 0).all()
    assert (gradient[:, :, 3:] != 0).any()


@pytest.mark.parametrize('kind', [CrossEntropy, JensenShannon, MaskedCrossEntropy], ids=lambda kind: kind.__name__)
def test_half_precision_logits_are_computed_in_float32(kind):
    logits = torch.randn(1, 4, 3, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    labels = torch.randint(0, 4, (1, 3, 3), generator=torch.Generator().manual_seed(1))
    assert kind()(logits, labels).dtype == torch.float32
    assert torch.equal(kind()(logits, labels), kind()(logits.float(), labels))


def test_jensen_shannon_gradient_vanishes_as_the_label_probability_does():
    # d JS / d u_t = p_y log(p_y / (1 + p_y)) (delta - p_t) / 2 (appendix A of SEA, with its factor 1/2 kept).
    logits = torch.tensor([[-30.0, 0.0], [0.3, -0.2], [12.0, 0.0]], dtype=torch.float64).T.reshape(1, 2, 1, 3)
    logits.requires_grad_()
    labels = torch.zeros(1, 1, 3, dtype=torch.int64)
    (gradient,) = torch.autograd.grad(JensenShannon()(logits, labels).sum(), logits)
    p = logits.softmax(1)[0, :, 0]
    expected = p[0] * (p[0] / (1 + p[0])).log() * (torch.tensor([[1.0], [0.0]]) - p) / 2
    torch.testing.assert_close(gradient[0, :, 0], expected.detach())
    assert gradient[0, :, 0, 0].abs().max() < 1e-10


def test_tracked_losses_are_the_unmasked_ones():
    from mmadv.attacks.pixel_scores import PixelScores

    logits = torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.randint(0, 4, (1, 5, 5), generator=torch.Generator().manual_seed(1))
    scores = PixelScores(logits, labels)
    cross_entropy = torch.nn.functional.cross_entropy(logits, labels, reduction='none')
    for kind in set(KINDS) - {LogitMargin, MaskedSpherical, Tsallis}:
        torch.testing.assert_close(kind().tracked(scores, 0.2), cross_entropy)
        torch.testing.assert_close(kind(targeted=True).tracked(scores, 0.2), -cross_entropy)
    u_y = logits.gather(1, labels[:, None])[:, 0]
    torch.testing.assert_close(MaskedSpherical().tracked(scores, 0.2), -u_y / logits.norm(dim=1))


@pytest.mark.parametrize(
    ('logits', 'labels', 'message'),
    [
        (
            torch.zeros(1, 3, 4, 4),
            torch.zeros(1, 4, 5, dtype=torch.int64),
            r'\(N, H, W\) with W = 4, as logits',
        ),
        (torch.zeros(1, 3, 4, 4), torch.full((1, 4, 4), 3), r'labels \[3\], which are neither classes'),
        (torch.zeros(1, 3, 4, 4), torch.full((1, 4, 4), -1), r'labels \[-1\], which are neither classes'),
    ],
)
def test_refuses_labels_that_do_not_fit(logits, labels, message):
    with pytest.raises(UserError, match=message):
        CrossEntropy()(logits, labels)


def test_refuses_an_unknown_squash():
    with pytest.raises(UserError, match="squash must be 'sigmoid' or 'softmax', found 'tanh'"):
        CosineCrossEntropy(squash='tanh')


@pytest.mark.parametrize('objective', ALL + MARGINS, ids=repr)
@pytest.mark.parametrize('size', [1.0, 30.0, 1e30])
def test_gradient_with_respect_to_logits_is_that_of_the_value(objective, size):
    logits = size * torch.randn(2, 5, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits[0, :, 0, 0] = 0
    labels = torch.randint(0, 5, (2, 4, 3), generator=torch.Generator().manual_seed(1))
    labels[1, 0] = 255
    leaf = logits.clone().requires_grad_()
    (expected,) = torch.autograd.grad(objective.value(PixelScores(leaf, labels), 0.3).sum(), leaf)
    before = logits.clone()
    actual = objective.logit_gradient(PixelScores(logits, labels), 0.3)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12 / size)
    assert (actual.movedim(1, -1)[labels == 255] == 0).all()
    assert torch.equal(logits, before)


@pytest.mark.parametrize('size', [1.0, 30.0])
def test_divergence_from_the_clean_prediction(size):
    generator = torch.Generator().manual_seed(0)
    logits, clean = (size * torch.randn(2, 5, 4, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    labels = torch.randint(0, 5, (2, 4, 3), generator=generator)
    labels[1, 0] = 255
    leaf = logits.clone().requires_grad_()
    value = KullbackLeibler()(leaf, labels, clean_logits=clean)
    p, q = clean.log_softmax(1), logits.log_softmax(1)
    expected = torch.nn.functional.kl_div(q, p, log_target=True, reduction='none').sum(1)
    torch.testing.assert_close(value.detach(), torch.where(labels == 255, 0, expected))
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    actual = KullbackLeibler().logit_gradient(PixelScores(logits, labels, clean_logits=clean), 0.3)
    torch.testing.assert_close(actual, gradient, rtol=1e-9, atol=1e-12)
    assert not KullbackLeibler()(logits, labels, clean_logits=logits).any()


@pytest.mark.parametrize('targeted', [False, True])
@pytest.mark.parametrize('progress', [0.0, 0.4, 0.999999, 1.0])
def test_tsallis_gradient_is_that_of_its_definition(progress, targeted):
    generator = torch.Generator().manual_seed(3)
    logits = (4 * torch.randn(2, 5, 4, 3, generator=generator, dtype=torch.float64)).requires_grad_()
    labels = torch.randint(0, 5, (2, 4, 3), generator=generator)
    labels[0, 0] = 255
    q = -2 + 3 * progress
    p = logits.softmax(1).gather(1, labels.where(labels != 255, 0).unsqueeze(1)).squeeze(1)
    naive_loss = (-p.log() if q == 1 else (1 - p ** (1 - q)) / (1 - q)) * (labels != 255)
    naive_loss = -naive_loss if targeted else naive_loss
    objective = Tsallis(targeted=targeted)
    (expected,) = torch.autograd.grad(naive_loss.sum(), logits, retain_graph=True)
    scores = PixelScores(logits.detach(), labels)
    torch.testing.assert_close(objective.value(scores, progress), naive_loss.detach(), rtol=0, atol=1e-9)
    torch.testing.assert_close(objective.logit_gradient(scores, progress), expected, rtol=0, atol=1e-12)


def test_tsallis_is_the_cross_entropy_at_order_one_and_close_to_it_nearby():
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(1, 5, 4, 3, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 5, (1, 4, 3), generator=generator)
    cross_entropy = CrossEntropy()(logits, labels)
    assert torch.equal(Tsallis()(logits, labels, progress=1.0), cross_entropy)
    torch.testing.assert_close(Tsallis(orders=(1 - 1e-13, 1))(logits, labels), cross_entropy, rtol=1e-11, atol=0)


def test_tsallis_follows_the_cross_entropy_and_refuses_orders_above_one():
    logits = torch.randn(1, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 4, (1, 3, 3), generator=torch.Generator().manual_seed(1))
    scores = PixelScores(logits, labels)
    assert torch.equal(Tsallis().tracked(scores, 0.1), CrossEntropy().value(scores, 0.1))
    for orders, message in (
        ((-2, 1.5), 'Tsallis: orders must be two numbers of at most 1'),
        ((-2, 0, 1), r'Tsallis.orders must be 2 numbers; found \(-2, 0, 1\)'),
        ((float('nan'), 1), r'Tsallis.orders\[0\] must be a finite number; found nan'),
    ):
        with pytest.raises(UserError, match=message):
            Tsallis(orders=orders)
