"""The PAG loss and its targets, against closed forms, finite differences and naive loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmadv.robustness import (
    ClassBank,
    ClassMean,
    Distillation,
    NearestNeighbour,
    OneImage,
    PAGLoss,
    class_scores,
    cosine_similarity,
    draw_bank,
    high_frequency_share,
    input_gradients,
    measure_gradients,
)


def everything(n, t):
    return torch.arange(t).expand(n, t)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_linear_model_has_its_weights_as_gradients_and_a_known_loss():
    weights, images = random(3, 5), random(4, 5, seed=1).requires_grad_()
    targets = random(4, 3, 5, seed=2)
    scores = images @ weights.T
    torch.testing.assert_close(input_gradients(scores, images), weights.expand(4, 3, 5))
    actual = PAGLoss(weight=0.5)(scores, images, targets)
    cosines = torch.tensor(
        [
            [float(w @ g) / math.sqrt(float(w @ w) * float(g @ g)) for w, g in zip(weights, row, strict=True)]
            for row in targets
        ],
        dtype=torch.float64,
    )
    torch.testing.assert_close(actual.cosines, cosines)
    torch.testing.assert_close(actual.loss.detach(), 0.5 * (1 - cosines).sum(1))


def test_what_is_measured_of_a_linear_segmentor_is_known():
    classes, weights = 11, random(11, 3, 1, 1)
    # The last image has a void row, which takes no part in its score.
    images, labels = random(2, 3, 4, 6, seed=1).abs().clamp_max(1), torch.zeros(2, 4, 6, dtype=torch.int64)
    labels[1, :1] = 255
    model = nn.Conv2d(3, classes, 1).double().train()
    with torch.no_grad():
        model.weight.copy_(weights)
    goals = random(2, classes, 3, 4, 6, seed=2)

    def target(inputs, some, _):
        assert torch.equal(inputs, images) and not inputs.requires_grad
        return torch.stack([goal[row] for goal, row in zip(goals, some, strict=True)])

    cosines, shares = measure_gradients(model, images, labels, everything(2, classes), target)
    gradients = (weights[None] * (labels != 255)[:, None, None]) / (labels != 255).sum((1, 2)).view(2, 1, 1, 1, 1)
    torch.testing.assert_close(cosines, cosine_similarity(gradients, goals))
    torch.testing.assert_close(shares[1], high_frequency_share(gradients[1]))
    assert not shares[0].any() and bool((shares[1] > 0.1).all())  # constant maps, and ones with an edge
    assert model.training and model.weight.requires_grad and model.weight.grad is None


def test_descending_on_the_loss_turns_the_gradient_of_a_linear_model_to_its_target():
    target = random(1, 1, 6, seed=3)
    model, images = nn.Linear(6, 1).double(), random(1, 6).requires_grad_()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        PAGLoss(weight=1)(model(images), images, target).loss.sum().backward()
        optimizer.step()
    assert float(cosine_similarity(model.weight[None].detach(), target)) > 0.999


@pytest.mark.parametrize(
    ('activation', 'norm'), [(nn.GELU(), nn.BatchNorm2d(3).eval()), (nn.SiLU(), nn.GroupNorm(1, 3))], ids=repr
)
def test_second_order_gradients_agree_with_finite_differences(activation, norm):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), norm, activation, nn.Conv2d(3, 3, 1)).double()
    images, targets = torch.rand(2, 2, 4, 4).double(), random(2, 3, 2, 4, 4)
    labels = torch.randint(0, 3, (2, 4, 4))
    labels[:, 0] = 255
    names = [name for name, _ in model.named_parameters()]

    def loss(*parameters):
        inputs = images.clone().requires_grad_()
        logits = torch.func.functional_call(model, dict(zip(names, parameters, strict=True)), inputs)
        scores = class_scores(logits, everything(2, 3), labels)
        return PAGLoss(weight=0.7)(scores, inputs, targets).loss.mean()

    parameters = tuple(parameter.detach().clone().requires_grad_() for parameter in model.parameters())
    assert torch.autograd.gradcheck(loss, parameters, atol=1e-6, eps=1e-5)


@given(st.integers(0, 2**31), st.integers(1, 3), st.floats(0.01, 100))
@settings(max_examples=30, deadline=None)
def test_the_cosine_ignores_lengths_and_is_bounded(seed, classes, length):
    vectors, others = random(2, classes, 3, 4, seed=seed), random(2, classes, 3, 4, seed=seed + 1)
    cosines = cosine_similarity(vectors, others)
    assert bool((cosines.abs() <= 1 + 1e-12).all())
    torch.testing.assert_close(cosine_similarity(length * vectors, others), cosines)
    torch.testing.assert_close(cosine_similarity(vectors, vectors), torch.ones(2, classes, dtype=torch.float64))


def test_a_zero_gradient_costs_one_and_stays_finite():
    images = random(2, 3).requires_grad_()
    model = nn.Linear(3, 1).double()
    nn.init.zeros_(model.weight)
    actual = PAGLoss(weight=1)(model(images), images, random(2, 1, 3))
    assert actual.loss.tolist() == [1, 1]
    actual.loss.sum().backward()
    assert bool(torch.isfinite(model.weight.grad).all())


def test_a_random_subset_of_classes_is_unbiased():
    images, weights = random(2, 5).requires_grad_(), random(4, 5, seed=1)
    targets = random(2, 4, 5, seed=2)
    scores = images @ weights.T
    whole = PAGLoss(weight=0.3)(scores, images, targets).loss
    pairs = [torch.tensor([a, b]) for a in range(4) for b in range(a + 1, 4)]
    subsets = [PAGLoss(weight=0.3, num_classes=4)(scores[:, pair], images, targets[:, pair]).loss for pair in pairs]
    torch.testing.assert_close(torch.stack(subsets).mean(0), whole)


def test_masked_pixels_count_neither_in_the_gradient_nor_in_the_target():
    images, weights = random(2, 6).requires_grad_(), random(3, 6, seed=1)
    targets = random(2, 3, 6, seed=2)
    mask = torch.tensor([True, True, False, True, False, True]).expand(2, 6)
    masked = PAGLoss(weight=1)(images @ weights.T, images, targets, mask).loss
    selected = mask[0]
    part = images.detach()[:, selected].requires_grad_()
    expected = PAGLoss(weight=1)(part @ weights[:, selected].T, part, targets[:, :, selected]).loss
    torch.testing.assert_close(masked, expected)


def test_scores_of_a_segmentor_are_means_over_the_named_pixels():
    logits, labels = random(2, 3, 2, 4), torch.tensor([[[0, 0, 1, 255], [1, 1, 255, 0]], [[255] * 4, [255] * 4]])
    classes = torch.tensor([[1, 2], [0, 1]])
    over_valid = class_scores(logits, classes, labels)
    over_class = class_scores(logits, classes, labels, over='class')
    valid = labels[0] != 255
    assert float(over_valid[0, 0]) == pytest.approx(float(logits[0, 1][valid].mean()))
    assert float(over_valid[0, 1]) == pytest.approx(float(logits[0, 2][valid].mean()))
    assert float(over_class[0, 0]) == pytest.approx(float(logits[0, 1][labels[0] == 1].mean()))
    assert float(over_class[0, 1]) == pytest.approx(float(over_valid[0, 1]))  # class 2 is not in the image
    assert over_valid[1].tolist() == over_class[1].tolist() == [0, 0]  # nothing is valid


def test_scores_of_a_classifier_are_its_logits():
    logits = random(3, 4)
    classes = torch.tensor([[0, 3], [1, 1], [2, 0]])
    expected = [[logits[n, k] for k in row] for n, row in enumerate(classes.tolist())]
    torch.testing.assert_close(class_scores(logits, classes), torch.tensor(expected, dtype=torch.float64))


def test_fixed_representatives_point_from_the_image_to_the_first_or_the_mean_example():
    bank = ClassBank(random(3, 4, 2, 2), torch.tensor([4, 2, 1]))
    images, classes = random(2, 2, 2, seed=5), torch.tensor([[2, 0], [1, 1]])
    one, mean = OneImage(bank)(images, classes), ClassMean(bank, scale=3)(images, classes)
    for n in range(2):
        for t in range(2):
            k = int(classes[n, t])
            torch.testing.assert_close(one[n, t], bank.examples[k, 0] - images[n])
            own = [bank.examples[k, m] for m in range(int(bank.counts[k]))]
            torch.testing.assert_close(mean[n, t], 3 * sum(own) / len(own) - images[n])


@given(st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_nearest_neighbours_agree_with_a_naive_search(seed):
    bank = ClassBank(random(3, 5, 2, 3, seed=seed), torch.tensor([5, 1, 3]))
    images = torch.cat([random(3, 2, 3, seed=seed + 1), bank.examples[0, 2:3]])  # the last is in the bank itself
    actual = NearestNeighbour(bank)(images, everything(4, 3))
    for n, image in enumerate(images):
        for k in range(3):
            own = [example for example in bank.examples[k, : int(bank.counts[k])] if not torch.equal(example, image)]
            nearest = min(own, key=lambda example: float((example - image).square().sum()))
            torch.testing.assert_close(actual[n, k], nearest - image)


def test_an_image_that_is_the_only_example_has_no_direction_to_it():
    bank = ClassBank(random(2, 1, 3), torch.tensor([1, 1]))
    assert NearestNeighbour(bank)(bank.examples[0], everything(1, 2))[0, 0].tolist() == [0, 0, 0]


def test_bytes_stand_for_images_in_the_unit_interval():
    examples = torch.tensor([[[0, 255]], [[51, 102]]], dtype=torch.uint8)
    images = torch.zeros(1, 2)
    for target in (OneImage, ClassMean, NearestNeighbour):
        actual = target(ClassBank(examples, torch.tensor([1, 1])))(images, everything(1, 2))
        torch.testing.assert_close(actual, torch.tensor([[[0.0, 1.0], [0.2, 0.4]]]))


def test_a_drawn_bank_holds_distinct_images_of_each_class_and_depends_on_its_seed():
    images, labels = torch.arange(60.0)[:, None], torch.arange(60) % 3
    bank = draw_bank(images, labels, num_classes=3, per_class=7, seed=1)
    for k in range(3):
        drawn = [int(value) for value in bank.examples[k, :, 0]]
        assert len(set(drawn)) == 7 and all(value % 3 == k for value in drawn)
    assert torch.equal(bank.examples, draw_bank(images, labels, num_classes=3, per_class=7, seed=1).examples)
    assert not torch.equal(bank.examples, draw_bank(images, labels, num_classes=3, per_class=7, seed=2).examples)


def test_distillation_gives_the_gradient_of_the_teacher_and_leaves_no_trace_in_it():
    teacher = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)).double().train()
    target = Distillation(teacher, 3).train()
    actual = target(random(2, 4), everything(2, 3))
    torch.testing.assert_close(actual, teacher[0].weight.detach().expand(2, 3, 4))
    assert not actual.requires_grad and teacher[0].weight.grad is None and not teacher.training


def test_distillation_takes_the_score_over_the_same_pixels_as_the_student():
    teacher = nn.Conv2d(1, 2, 1, bias=False).double()
    labels = torch.tensor([[[0, 1], [1, 255]]])
    actual = Distillation(teacher, 2)(random(1, 1, 2, 2), everything(1, 2), labels)
    for k in range(2):
        expected = float(teacher.weight[k, 0, 0, 0]) / 3 * (labels[0] != 255).double()
        torch.testing.assert_close(actual[0, k, 0], expected)


def test_energy_is_split_by_frequency():
    x = torch.arange(16.0).expand(16, 16)
    slow, fast = torch.cos(2 * math.pi * x / 16), torch.cos(math.pi * x)  # 1/16 and 1/2 cycles per pixel
    maps = torch.stack([slow + 5, fast, slow + fast / 2, torch.ones_like(x)])[:, None]
    # A cosine at the Nyquist frequency has twice the energy of another of its amplitude.
    torch.testing.assert_close(high_frequency_share(maps), torch.tensor([0, 1, 0.5 / (1 + 0.5), 0]) * 1.0)
    noise = torch.randn(20, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert float(high_frequency_share(noise).mean()) == pytest.approx(1 - math.pi / 16, abs=0.02)


@pytest.mark.parametrize(
    ('call', 'match'),
    [
        (lambda: PAGLoss(weight=0), 'weight must be a finite number more than 0; found 0'),
        (lambda: PAGLoss(weight=1, guard=-1.0), 'guard must be a finite number more than 0; found -1.0'),
        (lambda: PAGLoss(weight=1)(torch.ones(2, 3), torch.ones(2, 4), torch.ones(2, 3, 5)), r'with S = \(4,\)'),
        (lambda: PAGLoss(weight=1)(torch.ones(2, 3), torch.ones(2, 4), torch.ones(2, 3, 4)), 'do not depend'),
        (lambda: class_scores(torch.ones(1, 2), torch.zeros(1, 1).long(), over='all'), "'valid' or 'class'"),
        (lambda: class_scores(torch.ones(1, 2, 3, 3), torch.zeros(1, 1).long()), 'labels must be given for logits'),
        (lambda: OneImage(ClassBank(torch.ones(2, 1, 3), torch.tensor([1, 0]))), 'no example of class 1'),
        (lambda: ClassBank(torch.ones(2, 1, 3), torch.tensor([1, 2])), 'counts must lie between 0 and 1, the examples'),
        (lambda: draw_bank(torch.ones(4, 2), torch.zeros(4).long(), num_classes=1, per_class=5), 'has 4 images'),
        (lambda: Distillation(nn.Linear(2, 4), 3)(torch.ones(1, 2), everything(1, 3)), 'the teacher has 4 classes'),
        (
            lambda: OneImage(ClassBank(torch.ones(2, 1, 3), torch.tensor([1, 1])))(torch.ones(1, 4), everything(1, 2)),
            'make a bank of the size',
        ),
    ],
)
def test_what_does_not_fit_is_named(call, match):
    with pytest.raises(ValueError, match=match):
        call()
