"""AMA: its objective, its schedule, its loop and the presets made of them."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_models import PixelLinear, batch, conv_net

from mmadv.attacks import (
    APGD,
    L2,
    PGD,
    AnnealedMargin,
    Cascade,
    CosineSchedule,
    CrossEntropy,
    FurthestClass,
    Linf,
    ScheduledPGD,
    ama,
    auto,
    preset,
    sea,
)
from mmadv.attacks.pixel_scores import PixelScores
from mmadv.errors import UserError
from mmadv.registry import ATTACKS, build

FORMS = [
    AnnealedMargin(squash=squash, rival=rival, targeted=targeted, flipped_weight=weight)
    for squash, weight in (('atan', 1), ('atan', 0.1), ('sigmoid', 0))
    for rival in ('logsumexp', 'max')
    for targeted in (False, True)
]


def naive(objective, logits, labels, progress, scale=None):
    """One image (K, H, W), from the definition, in plain floats; None where ignored."""
    pixels = {
        (h, w): (logits[:, h, w].tolist(), int(labels[h, w]))
        for h in range(labels.shape[0])
        for w in range(labels.shape[1])
        if labels[h, w] != 255
    }
    leads = []
    for u, y in pixels.values():
        lead = u[y] - max(v for k, v in enumerate(u) if k != y)
        hit = u.index(max(u)) == y
        if hit != objective.targeted:
            leads.append(-lead if objective.targeted else lead)
    if scale is None:
        scale = max(sum(leads) / len(leads), 1e-3) if leads else 1e-3
    high, low = objective.temperatures
    temperature = scale * high * (low / high) ** progress
    values = {}
    for place, (u, y) in pixels.items():
        others = [v for k, v in enumerate(u) if k != y]
        top = max(others)
        rival = top / temperature
        if objective.rival == 'logsumexp':
            rival += math.log(sum(math.exp((v - top) / temperature) for v in others))
        margin = u[y] / temperature - rival
        value = -math.atan(margin) if objective.squash == 'atan' else (1 - math.tanh(margin / 2)) / 2
        flipped = (u.index(max(u)) == y) == objective.targeted
        value *= objective.flipped_weight if flipped else 1
        values[place] = -value if objective.targeted else value
    return values


@pytest.mark.parametrize('objective', FORMS, ids=repr)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), progress=st.floats(0, 1), size=st.sampled_from([1e-6, 0.1, 3.0]))
def test_equals_the_definition_pixel_by_pixel(objective, seed, progress, size):
    generator = torch.Generator().manual_seed(seed)
    logits = size * torch.randn(2, 4, 2, 3, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 4, (2, 2, 3), generator=generator)
    labels[1, 0, 1] = 255
    for scale in (None, torch.tensor([0.5, 2.0], dtype=torch.float64)):
        scores = PixelScores(logits, labels, scale=scale)
        actual = objective.value(scores, progress)
        for n in range(2):
            expected = naive(objective, logits[n], labels[n], progress, None if scale is None else float(scale[n]))
            for place, value in expected.items():
                assert float(actual[n][place]) == pytest.approx(value, abs=1e-10)
        assert actual[1, 0, 1] == 0
        if scale is not None:
            assert scores.scale is scale


@pytest.mark.parametrize('objective', FORMS, ids=repr)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), factor=st.floats(1e-2, 1e4), shift=st.floats(-100, 100))
def test_does_not_depend_on_the_scale_or_shift_of_the_logits(objective, seed, factor, shift):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, 5, 4, 4, generator=generator, dtype=torch.float64)
    labels = logits.argmax(1)
    labels[:, 2:] = torch.randint(0, 5, (2, 4), generator=generator)
    expected = objective(logits, labels, progress=0.4)
    torch.testing.assert_close(objective(factor * logits + shift, labels, progress=0.4), expected, rtol=0, atol=1e-7)


def test_tends_to_the_count_of_wrong_pixels():
    logits = torch.randn(1, 5, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.randint(0, 5, (1, 8, 8), generator=torch.Generator().manual_seed(1))
    wrong = (logits.argmax(1) != labels).double()
    steep = AnnealedMargin(squash='sigmoid', temperatures=(1, 1e-4), flipped_weight=1)(logits, labels, progress=1.0)
    torch.testing.assert_close(steep, wrong, rtol=0, atol=1e-6)


def test_schedule():
    schedule = CosineSchedule()
    assert [schedule.step_factor(t) for t in (0, 0.5, 1)] == pytest.approx([2, 1.01, 0.02])
    assert [schedule.radius_factor(t) for t in (0, 0.15, 0.3)] == pytest.approx([2, 1.75, 1.5])
    # Exactly 1, however i / n is rounded.
    assert all(schedule.radius_factor(3 * n / (5 * n)) == 1 for n in range(1, 400))
    assert schedule.radius_factor(1) == 1 and CosineSchedule(share=1).radius_factor(1) == 1
    assert CosineSchedule(start=1).radius_factor(0) == 1
    factors = [schedule.radius_factor(i / 100) for i in range(101)]
    steps = [schedule.step_factor(i / 100) for i in range(101)]
    assert factors == sorted(factors, reverse=True) and steps == sorted(steps, reverse=True)


def reference(model, clean, labels, radius, n, start, flipped_weight):
    """AMA on one image, written out: every iterate in a list, the margin by boolean indexing.

    Returns the pixels left correct, minus the iteration, and the iterate: of the strongest, and of the last.
    """
    valid = labels != 255
    target = labels[valid]

    def project(image, factor):
        return (clean + (image - clean).clamp(-factor * radius, factor * radius)).clamp(0, 1)

    history, candidates, scale = [], [], None
    x = start
    for i in range(n + 1):
        t = i / n
        factor = max(1.0, 2 - t / 0.6)
        x = project(x, 1.0 if factor < 1 + 1e-12 else factor).detach().requires_grad_()
        u = model(x[None])[0].permute(1, 2, 0)[valid]
        is_label = torch.arange(u.shape[1]) == target[:, None]
        own, others = u[is_label], u[~is_label].view(len(u), -1)
        correct = own > others.max(1).values
        if factor < 1 + 1e-12 or i == n:
            candidates.append((int(correct.sum()), -i, x.detach()))
        if i == n:
            break
        if scale is None:
            leads = (own - others.max(1).values)[correct].detach()
            scale = max(float(leads.mean()), 1e-3)
        temperature = scale * 0.3 * (0.02 / 0.3) ** t
        margin = own / temperature - (others / temperature).logsumexp(1)
        weight = torch.where(correct, 1, flipped_weight)
        (gradient,) = torch.autograd.grad((-weight * torch.atan(margin)).mean(), x)
        step = radius * (0.02 + 1.98 * (1 + math.cos(math.pi * t)) / 2)
        z = project(x.detach() + step * gradient.sign(), factor)
        following = (
            z if i == 0 else project(x.detach() + 0.5 * (z - x.detach()) + 0.5 * (x.detach() - history[-1]), factor)
        )
        history.append(x.detach())
        x = following
    return min(candidates, key=lambda entry: entry[:2]), candidates[-1]


@pytest.mark.parametrize(('radius', 'n'), [(8 / 255, 20), (2 / 255, 30), (0.3, 7)])
@pytest.mark.parametrize(('form', 'flipped_weight'), [('atan', 0.1), ('masked', 0)])
def test_parity_with_the_recipe_written_out(radius, n, form, flipped_weight):
    model, (images, labels) = conv_net(21).eval(), batch(21, n=3)
    labels = torch.where(labels == 255, 255, model(images).argmax(1))  # all correct at the start
    labels[:, :2] = torch.randint(0, 4, (3, 2, 10), generator=torch.Generator().manual_seed(0))
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1
    start = (images + 2 * radius * noise).clamp(0, 1)
    result = ama(radius, passes=n, form=form)(model, images, labels, start=start)
    trained_on = replace(ama(radius, passes=n, form=form), keep='last')(model, images, labels, start=start)
    assert trained_on.backward_passes.tolist() == [n] * 3
    for row in range(3):
        (correct, _, expected), (*_, last) = reference(
            model, images[row], labels[row], radius, n, start[row], flipped_weight
        )
        torch.testing.assert_close(trained_on.images[row], last, rtol=0, atol=1e-9)
        valid = int((labels[row] != 255).sum())
        assert float(result.accuracy[row]) == pytest.approx(correct / valid)
        if correct:
            torch.testing.assert_close(result.images[row], expected, rtol=0, atol=1e-9)


def test_its_own_start_is_uniform_in_the_doubled_ball():
    images = torch.full((4, 3, 16, 16), 0.5, dtype=torch.float64)
    seen = []

    def model(x):
        seen.append(x.detach().clone())
        return torch.stack([x.sum(1), x[:, 0]], 1)

    ama('8/255', passes=1)(model, images, torch.zeros(4, 16, 16, dtype=torch.int64), seeds=range(4))
    offsets = (seen[0] - 0.5) * 255 / 16
    assert offsets.abs().max() <= 1 + 1e-9 and offsets.abs().max() > 0.99
    assert abs(float(offsets.mean())) < 0.05 and float(offsets.var()) == pytest.approx(1 / 3, abs=0.02)
    assert (seen[-1] - 0.5).abs().max() <= 8 / 255 + 1e-12


@pytest.mark.parametrize('form', ['atan', 'masked', 'sigmoid'])
def test_reaches_the_closed_form_optimum_of_a_linear_model_linf(form):
    images, _ = batch(9, n=2)
    labels = torch.randint(0, 2, (2, 8, 10), generator=torch.Generator().manual_seed(0))
    model = PixelLinear([1.0, -2.0, 0.5], 0.2)
    direction = model.weight.detach().sign().view(1, 3, 1, 1) * (1 - 2 * labels)[:, None]
    optimum = (images + 8 / 255 * direction).clamp(0, 1)
    worst = (model(optimum).argmax(1) == labels).flatten(1).double().mean(1)
    result = ama('8/255', passes=50, form=form)(model, images, labels)
    torch.testing.assert_close(result.accuracy, worst)
    assert (worst > 0).all() and (worst < (model(images).argmax(1) == labels).flatten(1).double().mean(1)).all()


def test_reaches_the_closed_form_optimum_of_a_linear_model_l2():
    """One pixel: its prediction flips just beyond the distance |w·x + b| / |w| of the boundary."""
    weight = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    images = torch.full((1, 3, 1, 1), 0.5, dtype=torch.float64)
    bias = 0.1 * float(weight.norm()) - float(images.flatten() @ weight)
    model, labels = PixelLinear(weight, bias), torch.ones(1, 1, 1, dtype=torch.int64)
    for radius, accuracy in ((0.0999, 1.0), (0.1001, 0.0)):
        result = ama(radius, passes=50, threat='L2')(model, images, labels)
        assert result.accuracy.item() == accuracy
        assert L2(radius=radius).contains(result.images, images).all()


@pytest.mark.parametrize('passes', [1, 2, 5, 30])
@pytest.mark.parametrize('threat', ['Linf', 'L2'])
def test_costs_n_backward_and_n_plus_one_forward_passes(passes, threat):
    model, (images, labels) = conv_net(22), batch(22)
    result = ama(0.01, passes=passes, threat=threat)(model, images, labels)
    assert result.backward_passes.tolist() == [passes] * 3 and result.forward_passes.tolist() == [passes + 1] * 3
    result = auto(0.01, passes=4 * passes, threat=threat)(model, images, labels)
    assert result.backward_passes.tolist() == [4 * passes] * 3
    assert result.forward_passes.tolist() == [4 * passes + 6] * 3  # two to choose a class, four to score results


def test_a_solved_image_costs_no_more_passes_and_leaves_the_others_as_they_are():
    model, (images, labels) = conv_net(8).eval(), batch(8, n=4)
    labels[2] = (model(images)[2].argmax(0) + 1) % 4  # wrong from the start
    for attack, first in ((ama('0.01/255', passes=20), 12), (auto('0.01/255', passes=40), 9)):
        whole = attack(model, images, labels, seeds=[1, 2, 3, 4])
        others = attack(model, images[[0, 1, 3]], labels[[0, 1, 3]], seeds=[1, 2, 4])
        assert torch.equal(whole.images[[0, 1, 3]], others.images)
        # Solved at the first iterate that counts: the one after 60 % of the iterations.
        assert whole.accuracy[2] == 0 and whole.forward_passes[2] == first + 1
        assert (whole.backward_passes[[0, 1, 3]] == attack.steps).all()


def test_targeted_form_moves_predictions_to_the_target():
    model, (images, labels) = conv_net(10).eval(), batch(10)
    rare = int(model(images).argmax(1).flatten().bincount(minlength=4).argmin())
    target = torch.where(labels == 255, 255, rare)
    valid = target != 255
    before = ((model(images).argmax(1) == rare) & valid).flatten(1).sum(1) / valid.flatten(1).sum(1).double()
    reached = APGD(threat=Linf(radius=0.3), steps=20, objective=CrossEntropy(targeted=True))(model, images, target)
    for form in ('atan', 'masked', 'sigmoid'):
        attack = ama(0.3, passes=20, form=form, targeted=True)
        assert attack.targeted
        result = attack(model, images, target)
        assert (result.accuracy > before + 0.02).all()
        assert result.accuracy.mean() > reached.accuracy.mean() - 0.01
    assert (auto(0.3, passes=40, targeted=True)(model, images, target).accuracy >= result.accuracy - 0.05).all()


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize('scale', [0.0, 1e-30, 1e30, 'max'])
def test_logits_of_any_size_leave_a_result_in_the_budget(dtype, scale):
    scale = torch.finfo(dtype).max / 4 if scale == 'max' else scale
    images, labels = batch(23, dtype=dtype)

    def model(x):
        bounded = torch.tanh(x - 0.5)
        return torch.cat([bounded, -bounded[:, :1]], 1) * scale

    result = auto('4/255', passes=6)(model, images, labels)
    assert Linf(radius='4/255').contains(result.images, images).all() and result.images.dtype == dtype


@pytest.mark.parametrize('keep', ['lowest_accuracy', 'last'])
def test_furthest_class_is_the_targeted_attack_at_the_class_that_no_pixel_is_near(keep):
    model, (images, labels) = conv_net(12).eval(), batch(12)
    labels[0, 2:] = labels[1, 1:] = 255
    classes = []
    for n in range(3):  # by the definition, pixel by pixel
        logits = model(images[n : n + 1])[0].flatten(1).T.tolist()
        valid = (labels[n].flatten() != 255).tolist()
        nearest = [max(u[k] - max(u) for u, counts in zip(logits, valid, strict=True) if counts) for k in range(4)]
        classes.append(nearest.index(min(nearest)))
    target = torch.where(labels == 255, 255, torch.tensor(classes).view(-1, 1, 1))
    inner = replace(ama(0.1, passes=10, form='masked'), keep=keep)
    result = FurthestClass(attack=inner)(model, images, labels, seeds=[1, 2, 3])
    towards = replace(ama(0.1, passes=10, form='masked', targeted=True), keep='last')
    expected = towards(model, images, target, seeds=[1, 2, 3])
    assert torch.equal(result.images, expected.images) and classes == [2, 3, 0]
    valid = labels != 255
    correct = ((model(result.images).argmax(1) == labels) & valid).flatten(1).sum(1)
    assert torch.equal(result.accuracy, correct / valid.flatten(1).sum(1).double())
    assert result.backward_passes.tolist() == [10] * 3 and result.forward_passes.tolist() == [12] * 3


def test_furthest_class_of_a_targeted_attack_is_that_attack():
    model, (images, labels) = conv_net(10).eval(), batch(10)
    inner = ama(0.1, passes=10, targeted=True)
    actual, expected = (
        attack(model, images, labels, seeds=[1, 2, 3]) for attack in (FurthestClass(attack=inner), inner)
    )
    assert torch.equal(actual.images, expected.images) and torch.equal(actual.forward_passes, expected.forward_passes)


def test_furthest_class_flips_pixels_that_flip_together():
    """Every pixel has the mean image's class, and class 2 alone grows with the image; the labels are class 0."""
    images = torch.full((1, 3, 4, 4), 0.5, dtype=torch.float64)

    def model(x):
        mean = x.mean((1, 2, 3), keepdim=True).expand(-1, 1, 4, 4)
        return torch.cat([2 - 2 * mean, 0.9 + 0 * mean, 2 * mean - 0.2], 1)

    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    result = FurthestClass(attack=ama(0.1, passes=10))(model, images, labels)
    assert result.predictions.eq(2).all() and result.accuracy.item() == 0


def test_cascade_keeps_the_lowest_of_its_attacks():
    model, (images, labels) = conv_net(24).eval(), batch(24, n=6)
    attack = replace(auto('6/255', passes=20), relays=())
    whole = attack(model, images, labels, seeds=range(6))
    singles = [
        Cascade(attacks={name: part})(model, images, labels, seeds=range(6)) for name, part in attack.attacks.items()
    ]
    accuracy = torch.stack([single.accuracy for single in singles])
    assert torch.equal(whole.accuracy, accuracy.amin(0)) and (accuracy[0] != accuracy[1]).any()
    assert torch.equal(whole.forward_passes, sum(single.forward_passes for single in singles))


def test_a_relay_starts_from_the_strongest_result_so_far():
    model, (images, labels) = conv_net(24).eval(), batch(24, n=6)
    attack = auto('6/255', passes=20)
    forms = Cascade(attacks={name: attack.attacks[name] for name in ('ama', 'furthest', 'furthest_again')})
    before = forms(model, images, labels, seeds=range(6))
    after = attack.attacks['js'](model, images, labels, start=before.images)
    whole = attack(model, images, labels, seeds=range(6))
    lower = (after.accuracy <= before.accuracy).view(-1, 1, 1, 1)
    assert torch.equal(whole.accuracy, torch.minimum(before.accuracy, after.accuracy))
    assert torch.equal(whole.images, torch.where(lower, after.images, before.images))
    assert not torch.equal(whole.images, replace(attack, relays=())(model, images, labels, seeds=range(6)).images)
    assert build(attack.describe(), ATTACKS) == attack


def test_passes_of_the_ensemble_are_shared_out():
    assert [part.steps for part in auto('4/255').attacks.values()] == [150, 100, 100, 50]
    assert auto('4/255').attacks['js'] == replace(sea('4/255').attacks['js'].attack, steps=50)
    assert auto('4/255').steps == 400 and auto('4/255').with_steps(7).steps == 7
    assert [auto('4/255', passes=n).steps for n in range(4, 60)] == list(range(4, 60))
    assert auto('4/255', passes=401).steps == 401 and preset('auto', '4/255', 60) == auto('4/255', passes=60)
    assert preset('ama', '4/255') == ama('4/255', passes=100)
    assert preset('ama', 0.5, 30, 'L2') == ama(0.5, passes=30, threat='L2')
    assert build(dict(type='ama', radius='4/255', passes=30), ATTACKS) == ama(4 / 255, passes=30)


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: AnnealedMargin(squash='atn'), "unknown squash 'atn'; did you mean 'atan'"),
        (lambda: AnnealedMargin(rival='maxx'), "unknown rival 'maxx'; did you mean 'max'"),
        (lambda: AnnealedMargin(temperatures=(0.02, 0.3)), 'the higher first; found'),
        (lambda: AnnealedMargin(temperatures=(0.3, 0)), 'two numbers from 1e-4 to 1e4'),
        (lambda: AnnealedMargin(temperatures=(0.3,)), 'temperatures must be 2 numbers'),
        (lambda: CosineSchedule(steps=(0.02, 2)), 'the larger first; found'),
        (lambda: AnnealedMargin(flipped_weight=1.5), r'flipped_weight must lie in \[0, 1\]; found 1.5'),
        (lambda: CosineSchedule(start=0.5), 'start must be at least 1; found 0.5'),
        (lambda: CosineSchedule(share=0), r'share must lie in \(0, 1\]; found 0'),
        (lambda: ScheduledPGD(threat=Linf(radius=0.1), momentum=1), r'momentum must lie in \[0, 1\); found 1'),
        (lambda: ScheduledPGD(threat=Linf(radius=0.1), schedule={'type': 'Cosine'}), "unknown schedule 'Cosine'"),
        (lambda: ScheduledPGD(threat=Linf(radius=0.1), schedule=CrossEntropy()), 'schedule must be a schedule; found'),
        (lambda: replace(ama('4/255'), keep='lats'), "unknown keep 'lats'; did you mean 'last'"),
        (lambda: ama('4/255', form='tan'), "unknown form of AMA 'tan'; did you mean 'atan'"),
        (lambda: ama('4/255', passes=0), 'steps must be a positive integer; found 0'),
        (lambda: auto('4/255', passes=1), '4 attacks in turn need at least as many steps together; found 1'),
        (lambda: Cascade(attacks={}), 'at least one name'),
        (lambda: FurthestClass(attack=PGD(threat=Linf(radius=0.1))), 'attack must be a ScheduledPGD; found PGD'),
        (
            lambda: replace(auto('4/255'), relays=('ama',)),
            r"the first, \['furthest', 'furthest_again', 'js'\]; found \('ama',\)",
        ),
        (lambda: Cascade(attacks={'a': 3}), "'a' must be an attack; found 3"),
        (
            lambda: Cascade(attacks={'a': PGD(threat=Linf(radius=0.1)), 'b': PGD(threat=L2(radius=0.1))}),
            'same threat model',
        ),
        (lambda: Cascade(attacks={'a': ama('1/255'), 'b': ama('1/255', targeted=True)}), 'found both'),
    ],
)
def test_mistakes_get_a_sentence(call, message):
    with pytest.raises(UserError, match=message):
        call()
