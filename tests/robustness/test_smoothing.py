"""Smoothed models and their certificates on models whose smoothing is known."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn

from mmadv.attacks import L2, PGD, Linf
from mmadv.errors import UserError
from mmadv.registry import ATTACKS, build
from mmadv.robustness import Certifier, SmoothAdv, SmoothedModel
from mmadv.robustness.certification import two_sided_radii


class Halfspace(nn.Module):
    """Pixel (0, 0) of the logits says on which side of a hyperplane the whole image lies, (1, 0) the opposite."""

    def __init__(self, normal, offset, sharpness=1e4):
        super().__init__()
        self.normal = nn.Parameter(normal / normal.norm())
        self.offset, self.sharpness = offset, sharpness

    def forward(self, images):
        distance = (images * self.normal).flatten(1).sum(1) - self.offset
        score = torch.stack([distance, -distance], 1)[:, :, None, None] * self.sharpness
        return torch.stack([-score[:, 0], score[:, 0]], 1).expand(-1, -1, 2, 1) * torch.tensor([1.0, -1.0]).view(2, 1)


def halfspace(distance, **options):
    """The model, and an image at a distance of its hyperplane."""
    generator = torch.Generator().manual_seed(0)
    normal, image = torch.randn(1, 3, 4, generator=generator), torch.rand(1, 3, 4, generator=generator)
    normal /= normal.norm()
    return Halfspace(normal, float((image * normal).sum()) - distance, **options), image


def conv(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.GELU(), nn.Dropout(0.5), nn.Conv2d(4, 3, 3, padding=1)
    ).eval()


def test_the_soft_output_is_the_logarithm_of_the_mean_probability():
    model, images = conv(), torch.rand(2, 1, 5, 6)
    smoothed = SmoothedModel(model, sigma=0.3, samples=4, noise='fixed')
    seen = []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    actual = smoothed(images)
    model._forward_pre_hooks.clear()
    expected = torch.stack([model(noisy).softmax(1) for noisy in seen]).mean(0).log()
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(actual.exp().sum(1), torch.ones(2, 5, 6))
    together = SmoothedModel(model, sigma=0.3, samples=4, noise='fixed', draws_per_pass=3)(images)
    torch.testing.assert_close(together, actual)


def test_underflowing_probabilities_stay_finite():
    model = nn.Conv2d(1, 2, 1)
    nn.init.constant_(model.weight, 1000.0)
    with torch.no_grad():
        model.weight[1] = -1000.0
    actual = SmoothedModel(model, sigma=0.1, samples=3)(torch.full((1, 1, 2, 2), 0.9))
    assert bool(torch.isfinite(actual).all()) and float(actual.detach().min()) < -100


def test_votes_estimate_the_probability_of_a_class():
    model, image = halfspace(0.3)
    smoothed = SmoothedModel(model, sigma=0.5, samples=4000, output='hard', draws_per_pass=1000)
    share = float(smoothed(image[None]).exp()[0, 1, 0, 0])
    expected = norm.cdf(0.3 / 0.5)
    assert share == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 4000))
    assert not smoothed(image[None].requires_grad_()).requires_grad


def test_the_gradient_of_the_mean_logit_is_unbiased():
    # Of (x + σε)³ the expectation is x³ + 3σ²x, its derivative 3x² + 3σ².
    def cubic(images):
        return torch.cat([images, images**3], 1)

    images = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64).view(1, 1, 1, 3).requires_grad_()
    smoothed = SmoothedModel(cubic, sigma=0.4, samples=3000, output='mean_logits', draws_per_pass=3000)
    (gradient,) = torch.autograd.grad(smoothed(images)[:, 1].sum(), images)
    expected = 3 * images.detach() ** 2 + 3 * 0.4**2
    torch.testing.assert_close(gradient, expected, atol=0.12, rtol=0)
    smoothed.samples = 1
    single = torch.stack([torch.autograd.grad(smoothed(images)[:, 1].sum(), images)[0] for _ in range(1500)])
    error = single.std(0) / math.sqrt(1500)
    assert bool(((single.mean(0) - expected).abs() < 4 * error).all())


def test_the_gradient_of_the_cross_entropy_is_the_plug_in_estimator():
    model, images = conv().double(), torch.rand(1, 1, 4, 4).double().requires_grad_()
    smoothed = SmoothedModel(model, sigma=0.2, samples=3, noise='fixed')
    labels = torch.randint(0, 3, (1, 4, 4))
    (actual,) = torch.autograd.grad(nn.functional.cross_entropy(smoothed(images), labels), images)
    seen = []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach() - images.detach()))
    smoothed(images)
    model._forward_pre_hooks.clear()
    mean = sum(model(images + noise).softmax(1) for noise in seen) / 3
    loss = -mean.gather(1, labels[:, None]).log().mean()
    torch.testing.assert_close(actual, torch.autograd.grad(loss, images)[0])


@pytest.mark.parametrize('noise', ['fresh', 'fixed'])
def test_attacks_run_and_do_not_depend_on_the_batch(noise):
    images, labels = torch.rand(3, 1, 6, 6, dtype=torch.float64), torch.randint(0, 3, (3, 6, 6))
    smoothed = SmoothedModel(conv().double(), sigma=0.1, samples=2, noise=noise)
    attack = PGD(threat=L2(radius=0.5), steps=3)
    seeds = [1, 2, 3]
    together = attack(smoothed, images, labels, seeds=seeds)
    for i in range(3):
        smoothed.reset()
        alone = attack(smoothed, images[i : i + 1], labels[i : i + 1], seeds=seeds[i : i + 1])
        torch.testing.assert_close(alone.images[0], together.images[i])
    assert float((together.images - images).flatten(1).norm(dim=1).max()) <= 0.5 + 1e-6


def test_fresh_noise_changes_from_pass_to_pass_and_fixed_noise_does_not():
    images = torch.rand(2, 1, 4, 4)
    fresh = SmoothedModel(conv(), sigma=0.5, samples=2)
    first, second = fresh(images), fresh(images)
    assert not torch.equal(first, second)
    fresh.reset()
    assert torch.equal(fresh(images), first)
    assert not torch.equal(SmoothedModel(conv(), sigma=0.5, samples=2, seed=1)(images), first)
    fixed = SmoothedModel(conv(), sigma=0.5, samples=2, noise='fixed')
    assert torch.equal(fixed(images), fixed(images))


@pytest.mark.parametrize(('kind', 'bound'), [('hard', None), ('soft', 'hoeffding'), ('soft', 'bernstein')])
@pytest.mark.parametrize('correction', ['bonferroni', 'holm'])
def test_a_halfspace_is_certified_up_to_its_distance_and_no_further(kind, bound, correction):
    model, image = halfspace(0.5)
    taus = (0.6, 0.8, 0.9, 0.98)  # Φ(0.5 / 0.25) = 0.977
    certifier = Certifier(
        sigma=0.25, n0=20, n=8000, alpha=0.01, taus=taus, kind=kind, bound=bound, correction=correction, batch=2000
    )
    certificate = certifier(model, image, seed=3)
    assert certificate.classes.tolist() == [[1], [0]]  # the second pixel says the opposite
    certified = certificate.certified[:, :, 0]
    assert certified[:3].all() and not certified[3].any()
    radii = np.array(certifier.radii)
    assert radii[certified.any(1)].max() < 0.5 and radii[:3] == pytest.approx(0.25 * norm.ppf(taus[:3]))


@pytest.mark.parametrize(('kind', 'bound'), [('hard', None), ('soft', 'hoeffding'), ('soft', 'bernstein')])
def test_two_sides_certify_by_theorem_1(kind, bound):
    """The same draws, read class by class: the radius of theorem 1 against that of each tau."""
    model, image = conv().double(), torch.rand(1, 4, 5, dtype=torch.float64)
    with torch.no_grad():
        model[3].weight.mul_(40)
    settings = dict(sigma=0.3, n0=40, n=500, alpha=0.2, taus=(0.5, 0.52, 0.6, 0.7), kind=kind, bound=bound)
    certifier = Certifier(**settings, sides='two', batch=70)
    assert certifier.correction == 'bonferroni'
    seen = []
    handle = model.register_forward_hook(lambda module, inputs, output: seen.append(output))
    certificate = certifier(model, image, seed=5)
    handle.remove()
    shares = (
        torch.cat(seen).softmax(1)
        if kind == 'soft'
        else nn.functional.one_hot(torch.cat(seen).argmax(1), 3).movedim(-1, 1).double()
    )
    first, draws = shares[:40], shares[40:]
    assert torch.equal(torch.from_numpy(certificate.classes), first.sum(0).argmax(0))
    radii = two_sided_radii(
        certificate.classes,
        draws.mean(0).numpy(),
        draws.var(0).numpy(),
        500,
        alpha=0.2,
        sigma=0.3,
        bound=certifier.bound,
    )
    expected = np.stack([radii > 0.3 * norm.ppf(tau) for tau in certifier.taus])
    np.testing.assert_array_equal(certificate.certified, expected)
    assert 0 < certificate.certified[0].sum() < certificate.certified[0].size


def test_certificates_depend_on_the_seed_alone_and_leave_the_model_alone():
    model, image = conv().train(), torch.rand(1, 6, 7)
    certificates = [
        Certifier(sigma=0.5, n0=5, n=60, alpha=0.1, taus=(0.5,), batch=batch)(model, image, seed=seed)
        for batch, seed in ((1, 0), (7, 0), (64, 0), (7, 1))
    ]
    for other in certificates[1:3]:
        np.testing.assert_array_equal(other.classes, certificates[0].classes)
        np.testing.assert_array_equal(other.certified, certificates[0].certified)
    assert not np.array_equal(certificates[3].certified, certificates[0].certified)
    assert model.training and model[2].training and all(p.requires_grad for p in model.parameters())


def test_certificates_are_wrong_as_seldom_as_alpha_says():
    # All pixels say the same and lie exactly at tau: certifying any is an error.
    tau, alpha, trials = 0.8, 0.2, 150
    model, image = halfspace(0.25 * float(norm.ppf(tau)))
    certifier = Certifier(sigma=0.25, n0=5, n=60, alpha=alpha, taus=(tau,), batch=60)
    wrong = sum(bool(certifier(model, image, seed=seed).certified.any()) for seed in range(trials)) / trials
    assert wrong <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / trials)


def test_smooth_adv_is_the_inner_attack_and_noise_on_top():
    # Of a linear pixel-wise model every gradient has the sign of the weights, whatever the noise.
    weights = torch.tensor([1.0, -2.0], dtype=torch.float64)

    def model(images):
        score = (images * weights.view(2, 1, 1)).sum(1)
        return torch.stack([-score, score], 1)

    images = 0.4 + 0.2 * torch.rand(3, 2, 4, 4, dtype=torch.float64)
    labels = torch.ones(3, 4, 4, dtype=torch.int64)
    inner = PGD(threat=Linf(radius=0.05), steps=2, step_size=0.04)
    attack = SmoothAdv(attack=inner, sigma=0.02, samples=3)
    result = attack(model, images, labels, seeds=[1, 2, 3])
    noise = result.images - (images - 0.05 * weights.sign().view(2, 1, 1))
    assert float(noise.std()) == pytest.approx(0.02, rel=0.2) and float(noise.mean()) == pytest.approx(0, abs=0.006)
    assert result.forward_passes.tolist() == [2 * 3 + 1] * 3  # and one to evaluate
    alone = attack(model, images[1:2], labels[1:2], seeds=[2])
    torch.testing.assert_close(alone.images[0], result.images[1])
    assert not torch.equal(attack(model, images, labels, seeds=[1, 2, 4]).images[2], result.images[2])
    assert build(attack.describe(), ATTACKS) == attack and attack.with_radius(0.1).attack.threat.radius == 0.1


def test_smooth_adv_follows_the_gradient_of_the_smoothed_model():
    model, images = conv().double(), 0.3 + 0.4 * torch.rand(1, 1, 5, 5, dtype=torch.float64)
    labels = torch.randint(0, 3, (1, 5, 5))
    attack = SmoothAdv(attack=PGD(threat=L2(radius=0.1), steps=1, random_start=False), sigma=1e-4, samples=2)
    actual = attack(model, images, labels, seeds=[7]).images
    smoothed = SmoothedModel(model, sigma=1e-4, samples=2, noise='fixed', image_seeds=[7])
    inputs = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(smoothed(inputs), labels), inputs)
    torch.testing.assert_close(actual, images + 0.1 * gradient / gradient.norm(), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ('call', 'match'),
    [
        (lambda: SmoothedModel(conv(), sigma=0), 'sigma must be a positive number.*found 0'),
        (lambda: SmoothedModel(conv(), sigma=0.1, samples=0), 'samples must be a positive integer; found 0'),
        (lambda: SmoothedModel(conv(), sigma=0.1, output='sotf'), "unknown output 'sotf'; did you mean 'soft'"),
        (lambda: SmoothedModel(conv(), sigma=0.1, noise='fixd'), "unknown noise 'fixd'; did you mean 'fixed'"),
        (
            lambda: SmoothAdv(attack=PGD(threat=L2(radius=1), keep='lowest_accuracy'), sigma=0.1),
            "must be PGD that keeps the 'last' iterate",
        ),
        (lambda: SmoothAdv(attack=PGD(threat=L2(radius=1)), sigma=0), 'sigma must be a positive number'),
        (lambda: SmoothAdv(attack=PGD(threat=L2(radius=1)), sigma=0.1, samples=0), 'samples must be a positive'),
        (lambda: Certifier(sigma=-1.0), 'sigma must be a positive number'),
        (lambda: Certifier(sigma=0.1, n=0), 'n must be positive; found 0'),
        (lambda: Certifier(sigma=0.1, alpha=1), 'alpha must lie between 0 and 1; found 1'),
        (lambda: Certifier(sigma=0.1, taus=(0.4,)), 'tau must be at least 0.5 and less than 1; found 0.4'),
        (lambda: Certifier(sigma=0.1, taus=(0.6, 0.6)), 'each once'),
        (lambda: Certifier(sigma=0.1, bound='hoeffding'), "hard smoothing has no bound 'hoeffding'"),
        (lambda: Certifier(sigma=0.1, correction='hol'), "did you mean 'holm'"),
        (lambda: Certifier(sigma=0.1, sides='three'), "sides must be 'one' or 'two'; found 'three'"),
        (lambda: Certifier(sigma=0.1, sides='two', correction='holm'), "two sides need the correction 'bonferroni'"),
        (
            lambda: Certifier(sigma=0.1, n=35, sides='two')(conv(), torch.rand(1, 4, 4)),
            'n = 35 draws cannot .*at least 38 are needed',
        ),
        (
            lambda: Certifier(sigma=0.1, n=30)(conv(), torch.rand(1, 4, 4)),
            'n = 30 draws cannot .*at least 34 are needed',
        ),
        (lambda: Certifier(sigma=0.1)(lambda images: images / 0, torch.rand(1, 4, 4)), 'NaN or infinite'),
    ],
)
def test_what_makes_no_sense_is_named(call, match):
    with pytest.raises(UserError, match=match):
        call()
