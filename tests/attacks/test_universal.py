"""Universal perturbations: on a model whose best one is known, and what every trained one keeps."""

import itertools

import pytest
import torch

from mmadv.attacks import L2, Linf, RandomNoise, TrainingBatch, Universal, parse_radius
from mmadv.attacks.objectives import CrossEntropy, JensenShannon, MaskedCrossEntropy
from mmadv.errors import UserError
from mmadv.registry import ATTACKS, build

RADIUS = 8 / 255
WEIGHTS = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64).view(1, 3, 1, 1)


def model(images):
    """Class 1 where the weighted sum of the channels, less its value at mid-grey, is positive."""
    score = (WEIGHTS.to(images) * (images - 0.5)).sum(1, keepdim=True)
    return torch.cat([-score, score], dim=1)


def images_of(number, size=(5, 6), seed=0):
    """Images around mid-grey whose pixels are mostly of class 1, and labels of that class."""
    draw = torch.Generator().manual_seed(seed)
    noise = torch.randn(number, 3, *size, generator=draw, dtype=torch.float64)
    return 0.5 + 0.01 * noise + 0.02 * WEIGHTS.sign(), torch.ones(number, *size, dtype=torch.int64)


def batches_of(images, labels, size=4):
    while True:
        for start in range(0, len(images), size):
            yield [TrainingBatch(model, images[start : start + size], labels[start : start + size])]


@pytest.fixture
def trained():
    return Universal(threat=Linf(radius=RADIUS), steps=40).train(batches_of(*images_of(8)))


def test_finds_the_best_perturbation_of_a_linear_model(trained):
    expected = (-RADIUS * WEIGHTS.sign())[0].expand(3, 5, 6)
    torch.testing.assert_close(trained.perturbation, expected, rtol=0, atol=1e-9)


def test_under_l2_it_follows_the_weights():
    attack = Universal(threat=L2(radius=0.5), steps=80).train(batches_of(*images_of(8)))
    perturbation = attack.perturbation
    assert float(perturbation.norm()) == pytest.approx(0.5, abs=1e-6)
    direction = perturbation.mean(dim=(1, 2)) / perturbation.mean(dim=(1, 2)).norm()
    torch.testing.assert_close(direction, -WEIGHTS.flatten() / WEIGHTS.norm(), rtol=0, atol=0.05)


def test_is_the_same_for_all_images_and_beats_noise_on_others(trained):
    images, labels = images_of(6, seed=1)
    result = trained(model, images, labels)
    change = result.images - images
    torch.testing.assert_close(change, change[:1].expand_as(change), rtol=0, atol=1e-12)
    torch.testing.assert_close(change[0], trained.perturbation, rtol=0, atol=1e-12)
    noise = RandomNoise(threat=trained.threat, steps=10)(model, images, labels)
    assert result.accuracy.mean() < noise.accuracy.mean() - 0.3
    assert result.backward_passes.sum() == 0 and result.forward_passes.tolist() == [1] * 6
    parts = torch.cat([trained(model, images[n : n + 1], labels[n : n + 1]).images for n in range(6)])
    assert torch.equal(parts, result.images)


def test_default_objective_spends_nothing_on_pixels_that_are_wrong_for_good():
    def linear(images):
        score = 20 * (images - 0.5).mean(1, keepdim=True)
        return torch.cat([-score, score], dim=1)

    # The first image is wrong whatever the perturbation, the second is right and flips if the perturbation darkens it.
    images = torch.stack([torch.full((3, 2, 2), value, dtype=torch.float64) for value in (0.7, 0.515)])
    labels = torch.stack([torch.full((2, 2), label) for label in (0, 1)])
    threat = Linf(radius=RADIUS)
    accuracy = {}
    for attack in (Universal(threat=threat, steps=20), Universal(threat=threat, steps=20, objective=CrossEntropy())):
        trained = attack.train(itertools.repeat([TrainingBatch(linear, images, labels)]))
        accuracy[type(attack.objective)] = trained(linear, images, labels).accuracy.tolist()
    assert accuracy == {JensenShannon: [0, 0], CrossEntropy: [0, 1]}


def test_images_are_clipped_and_the_ball_is_kept():
    images, labels = images_of(4)
    images[:, :, 0] = 1.0
    images[:, :, 1] = 0.0
    attack = Universal(threat=Linf(radius=RADIUS), steps=10).train(batches_of(images, labels))
    result = attack(model, images, labels)
    assert float(result.images.min()) >= 0 and float(result.images.max()) <= 1
    assert attack.threat.contains(result.images, images).all()


@pytest.mark.filterwarnings('ignore:.*, less than the radius:UserWarning')
@pytest.mark.parametrize('objective', [JensenShannon(), MaskedCrossEntropy()], ids=repr)
def test_any_objective_and_the_same_seed_give_the_same(objective):
    images, labels = images_of(8)
    attack = Universal(threat=Linf(radius=RADIUS), steps=3, step_size='0.5/255', objective=objective)
    one, two, other = (attack.train(batches_of(images, labels), seed=seed).perturbation for seed in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, other)
    assert float(one.abs().max()) <= RADIUS + 1e-12
    assert model(images + one).argmax(1).sum() < model(images).argmax(1).sum()


@pytest.mark.filterwarnings('ignore:.*, less than the radius:UserWarning')
def test_void_pixels_and_images_are_in_no_gradient():
    images, labels = images_of(4)
    labels[:, :, 3:] = 255
    labels[3] = 255
    attack = Universal(threat=Linf(radius=RADIUS), steps=5, step_size='1/255')
    whole = attack.train(batches_of(images, labels)).perturbation
    torch.testing.assert_close(attack.train(batches_of(images[:3], labels[:3])).perturbation, whole)
    images[:, :, :, 3:] = 0.3  # changes nothing: no gradient comes from there
    torch.testing.assert_close(attack.train(batches_of(images, labels)).perturbation, whole)


def test_parameters_survive_and_a_change_loses_the_perturbation(trained):
    rebuilt = build(trained.describe(), ATTACKS)
    assert rebuilt == trained and rebuilt.perturbation is None
    assert trained.with_steps(7).perturbation is None
    assert trained.with_radius('4/255').perturbation is None
    again = rebuilt.with_perturbation(2 * trained.perturbation)
    assert float(again.perturbation.abs().max()) == pytest.approx(parse_radius('8/255'))


def test_refused(trained):
    images, labels = images_of(2, size=(4, 4))
    with pytest.raises(UserError, match='it is 3x5x6, an image is 3x4x4'):
        trained(model, images, labels)
    untrained = Universal(threat=Linf(radius=RADIUS), steps=3)
    with pytest.raises(UserError, match='the perturbation is not trained; call its method train first'):
        untrained(model, images, labels)
    with pytest.raises(UserError, match='training takes 3 mini-batches; found 2'):
        untrained.train(itertools.islice(batches_of(images, labels), 2))
    with pytest.raises(UserError, match='none of the training images has a labelled pixel'):
        untrained.train(batches_of(images, torch.full_like(labels, 255)))
    with pytest.raises(UserError, match='it is 3x4x4, an image is 3x5x6'):
        mixed = [TrainingBatch(model, images, labels), TrainingBatch(model, *images_of(1))]
        untrained.train(itertools.repeat(mixed))
    with pytest.raises(UserError, match='takes no start'):
        trained(model, *images_of(1), start=images_of(1)[0])
    for parameters, message in (
        ({'step_size': 0}, 'step_size 0 moves nothing'),
        ({'batch_size': 0}, 'batch_size must be a positive integer; found 0'),
        ({'steps': 0}, 'steps must be a positive integer'),
    ):
        with pytest.raises(UserError, match=message):
            Universal(threat=Linf(radius=RADIUS), **parameters)
