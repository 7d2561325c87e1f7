"""Properties that every attack has, and the optimum where it is known."""

import dataclasses
import inspect
import json
import pickle
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from toy_models import PixelLinear, batch, conv_net

from mmadv.attacks import (
    APGD,
    BIM,
    FGSM,
    L1,
    L2,
    PGD,
    PRESETS,
    BalancedCrossEntropy,
    Box,
    ByRadius,
    Cascade,
    CosPGD,
    CrossEntropy,
    FastNewton,
    GaussianNoise,
    JensenShannon,
    KullbackLeibler,
    Linf,
    MaskedCrossEntropy,
    MaskedSpherical,
    NonFiniteGradient,
    NonFiniteLogits,
    RadiusReduction,
    RandomChoice,
    RandomFGSM,
    RandomNoise,
    Restarts,
    SegPGD,
    Square,
    WorstCase,
    adaptive,
    ama,
    auto,
    preset,
    sea,
)
from mmadv.attacks.attack_context import AttackContext
from mmadv.attacks.class_weights import needs_class_weights, with_class_weights
from mmadv.attacks.patch import Patch, UniversalPatch
from mmadv.attacks.trained_attack import TrainedAttack, TrainingBatch
from mmadv.attacks.universal import Universal
from mmadv.errors import UserError
from mmadv.registry import ATTACKS, build
from mmadv.robustness import SmoothAdv

LINF, EUCLID = Linf(radius='8/255'), L2(radius=0.5)
ALL = [
    FGSM(threat=LINF),
    RandomFGSM(threat=LINF),
    FastNewton(),
    BIM(threat=LINF, steps=4),
    PGD(threat=EUCLID, steps=4),
    PGD(threat=LINF, steps=4, keep='best_loss'),
    PGD(threat=LINF, steps=4, keep='lowest_accuracy'),
    SegPGD(threat=LINF, steps=4, keep='lowest_accuracy'),
    CosPGD(threat=LINF, steps=4),
    APGD(threat=LINF, steps=8),
    APGD(threat=EUCLID, steps=8, objective=CrossEntropy()),
    APGD(threat=LINF, steps=8, objective=JensenShannon(targeted=True)),
    APGD(threat=L1(radius=4.0), steps=8),
    PGD(threat=L1(radius=4.0), steps=4),
    RadiusReduction(attack=APGD(threat=LINF, steps=10, objective=MaskedSpherical())),
    Restarts(attack=PGD(threat=LINF, steps=2), restarts=2),
    WorstCase(attacks={'ce': PGD(threat=LINF, steps=3), 'masked': APGD(threat=LINF, steps=5)}),
    RandomChoice(attacks={'newton': FastNewton(), 'pgd': PGD(threat=LINF, steps=2, keep='best_loss')}),
    ByRadius(attacks={'a': BIM(threat=LINF, steps=3), 'b': PGD(threat=Linf(radius=0.1), steps=2)}),
    GaussianNoise(sigma=0.1),
    PGD(threat=LINF, steps=3, objective=KullbackLeibler()),
    sea('8/255', iterations=6),
    preset('tsallis', '8/255', 10),
    sea(0.5, iterations=6, preset='eccv', threat='L2', class_weights=(0.5, 2, 1, 0.25)),
    sea('8/255', iterations=6, preset='eccv-image'),
    ama('8/255', passes=8),
    ama(0.5, passes=8, form='sigmoid', threat='L2', targeted=True),
    auto('8/255', passes=8),
    adaptive('8/255', passes=8),
]
# What a registered attack needs beside a threat model and a few steps, where it needs more.
ARGUMENTS = {
    'FurthestClass': {'attack': ama('8/255', passes=8)},
    'Patch': {'steps': 4, 'size': (2, 3)},
    'PixelwiseFastNewton': {},
    'Restarts': {'attack': PGD(threat=LINF, steps=2)},
    'SmoothAdv': {'attack': PGD(threat=EUCLID, steps=2), 'sigma': 0.1},
    'StepSearch': {'attack': FGSM(threat=LINF)},
    'WorstPlace': {'attack': PGD(threat=LINF, steps=2), 'places': 3, 'share': 0.25},
}


# They are trained on images before they run.
TRAINED = ('Universal', 'UniversalPatch')


def short_form(name):
    """Returns a short form of the attack registered under a name, so that a new one keeps every promise below."""
    known = inspect.signature(ATTACKS.get(name)).parameters
    arguments = ARGUMENTS.get(name, {'threat': LINF} | ({'steps': 4} if 'steps' in known else {}))
    return build({'type': name, **arguments}, ATTACKS)


ALL += [
    short_form(name)
    for name in ATTACKS.names()
    if name not in {type(attack).__name__ for attack in ALL}
    and name not in ('adaptive', 'ama', 'auto', 'sea', *TRAINED)
]
# These run after they were trained.
ALL.append(Universal(threat=LINF, steps=4).with_perturbation(torch.full((3, 8, 10), 0.01, dtype=torch.float64)))
GREY = torch.full((3, 2, 2), 128 / 255, dtype=torch.float64)
ALL.append(UniversalPatch(steps=4, brightness=(1, 1)).with_texture(GREY))
TWO = {'a': FGSM(threat=LINF), 'b': BIM(threat=LINF, steps=3)}
every_attack = pytest.mark.parametrize('attack', ALL, ids=lambda attack: f'{type(attack).__name__}-{ALL.index(attack)}')


@every_attack
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_result_is_in_the_budget_and_says_what_it_did(attack, seed):
    model, (images, labels) = conv_net(seed), batch(seed)
    result = attack(model, images, labels, seeds=[1, 2, 3])
    assert attack.threat.contains(result.images, images).all()
    model.eval()
    predictions = model(result.images).argmax(1)
    assert torch.equal(result.predictions, predictions)
    valid = labels != 255
    accuracy = ((predictions == labels) & valid).flatten(1).sum(1) / valid.flatten(1).sum(1).double()
    torch.testing.assert_close(result.accuracy, accuracy)
    assert (result.forward_passes > result.backward_passes).all()


# Rows 2 to 5 and columns 2 to 5 of 8 x 10 pixels.
BOX = Box(top=0.25, left=0.2, height=0.5, width=0.4)
# Two have no budget of their own; Universal is trained again in a region, and WorstPlace and patches choose their own:
# see test_region.py and test_patch.py.
WITHOUT_REGION = ('GaussianNoise', 'SmoothAdv', 'WorstPlace', 'Patch', *TRAINED)
# Their steps may be shortened to nothing.
MAY_STAY = ('FastNewton', 'PixelwiseFastNewton', 'RandomChoice', 'StepSearch')


@pytest.mark.parametrize('attack', [one for one in ALL if type(one).__name__ not in WITHOUT_REGION], ids=repr)
def test_only_the_region_changes(attack):
    model, (images, labels) = conv_net(3), batch(3)
    inside = attack.inside(BOX)
    result = inside(model, images, labels, seeds=[1, 2, 3])
    changed = (result.images != images).any(1)
    assert not changed[~BOX.mask(images)[:, 0].expand_as(changed)].any()
    assert type(attack).__name__ in MAY_STAY or changed[:, 2:6, 2:6].float().mean() > 0.5
    assert inside.threat.contains(result.images, images).all() and inside.threat.region == BOX


class WrongOnlyHere(nn.Module):
    """Predicts class 0 everywhere but at given images, where it predicts class 1: a result that no step can reach."""

    def __init__(self, images):
        super().__init__()
        self.images = images

    def forward(self, images):
        score = (images - self.images[: len(images)]).abs().sum(1) - 1e-12
        zero = torch.zeros_like(score)
        return torch.stack([score, zero, zero - 1, zero - 2], 1)


@every_attack
def test_clean_image_is_a_candidate_of_attacks_that_keep_the_strongest(attack):
    images, labels = batch(4)
    model, labels = WrongOnlyHere(images), torch.where(labels == 255, 255, int(attack.targeted))
    result = attack(model, images, labels, seeds=[1, 2, 3])
    known = attack(model, images, labels, seeds=[1, 2, 3], clean_predictions=model(images).argmax(1))
    assert torch.equal(known.forward_passes, result.forward_passes)  # the candidate costs none
    if not attack.keeps_strongest:
        assert torch.equal(known.images, result.images) and torch.equal(known.accuracy, result.accuracy)
        return
    for one in (known, *known.members.values()):
        assert torch.equal(one.images, images) and (one.predictions == 1).all()
        assert one.accuracy.tolist() == [float(attack.targeted)] * 3
    # They never see the clean image themselves. Under L1, some pixels stay as they are.
    if isinstance(attack, (APGD, Square, RandomNoise)) and not isinstance(attack.threat, L1):
        assert result.accuracy.tolist() == [float(not attack.targeted)] * 3


def test_auto_knows_the_clean_predictions_from_its_own_passes():
    images, labels = batch(4)
    result = auto('8/255', passes=8)(WrongOnlyHere(images), images, torch.where(labels == 255, 255, 0))
    assert torch.equal(result.images, images) and result.accuracy.tolist() == [0.0] * 3


def test_stronger_results_than_the_clean_image_stay():
    model, (images, labels) = conv_net(5).eval(), batch(5)
    attack = sea('8/255', iterations=6)
    result = attack(model, images, labels, seeds=[1, 2, 3])
    clean = model(images).argmax(1)
    known = attack(model, images, labels, seeds=[1, 2, 3], clean_predictions=clean)
    assert torch.equal(known.images, result.images) and torch.equal(known.predictions, result.predictions)
    right = ((clean == labels) & (labels != 255)).flatten(1).sum(1)
    assert (known.accuracy < right / (labels != 255).flatten(1).sum(1)).all()


@every_attack
def test_independent_of_batch_size_order_and_company(attack):
    model, (images, labels) = conv_net(3), batch(3, n=5)
    seeds = [11, 12, 13, 14, 15]
    whole = attack(model, images, labels, seeds=seeds)
    order = torch.tensor([4, 2, 0, 3, 1])
    shuffled = attack(model, images[order], labels[order], seeds=[seeds[i] for i in order])
    alone = [attack(model, images[i : i + 1], labels[i : i + 1], seeds=seeds[i : i + 1]) for i in range(5)]
    for name in ('images', 'predictions', 'accuracy', 'forward_passes', 'backward_passes'):
        value = getattr(whole, name)
        torch.testing.assert_close(getattr(shuffled, name), value[order], rtol=0, atol=1e-9)
        torch.testing.assert_close(torch.cat([getattr(one, name) for one in alone]), value, rtol=0, atol=1e-9)


@every_attack
def test_seeds_decide_everything(attack):
    model, (images, labels) = conv_net(1), batch(1)
    torch.manual_seed(0)
    first = attack(model, images, labels, seeds=[1, 2, 3])
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert torch.equal(attack(model, images, labels, seeds=[1, 2, 3]).images, first.images)
    assert torch.equal(attack(model, images, labels).images, attack(model, images, labels).images)
    assert torch.equal(torch.get_rng_state(), state)
    other = attack(model, images, labels, seeds=[4, 5, 6])
    assert torch.equal(other.images, first.images) != attack.is_random


@every_attack
def test_images_without_a_valid_pixel_come_back_unchanged(attack):
    model, (images, labels) = conv_net(2), batch(2)
    whole = attack(model, images[[0, 2]], labels[[0, 2]], seeds=[1, 3])
    labels[1] = 255
    result = attack(model, images, labels, seeds=[1, 2, 3])
    assert torch.equal(result.images[1], images[1]) and result.accuracy[1].isnan()
    assert torch.equal(result.images[[0, 2]], whole.images)
    assert result.backward_passes[1] == 0
    for name, member in result.members.items():
        assert torch.equal(member.images[[0, 2]], whole.members[name].images) and member.accuracy[1].isnan()
    nothing = attack(model, images, torch.full_like(labels, 255))
    assert torch.equal(nothing.images, images) and nothing.accuracy.isnan().all()


@every_attack
def test_model_is_left_as_it_was(attack):
    model, (images, labels) = conv_net(4), batch(4)
    model.train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    model[4].weight.grad = torch.ones_like(model[4].weight)
    before = {key: value.clone() for key, value in model.state_dict().items()}

    def check():
        assert [module.training for module in model] == [True, False, True, True, True]
        assert [p.requires_grad for p in model.parameters()] == [False, True, True, True, True, True]
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
        assert torch.equal(model[4].weight.grad, torch.ones_like(model[4].weight)) and model[4].bias.grad is None

    attack(model, images, labels)
    check()
    hook = model[4].register_forward_hook(lambda *_: (_ for _ in ()).throw(RuntimeError('stop')))
    with pytest.raises(RuntimeError, match='stop'):
        attack(model, images, labels)
    hook.remove()
    check()
    assert images.grad is None and not images.requires_grad


@every_attack
def test_perturb_returns_the_images_of_call(attack):
    model, (images, labels) = conv_net(5), batch(5)
    labels[1] = 255
    expected = attack(model, images, labels, seeds=[1, 2, 3]).images
    assert torch.equal(attack.perturb(model, images, labels, seeds=[1, 2, 3]), expected)


@every_attack
def test_describe_is_json_and_builds_the_same_attack(attack):
    assert build(json.loads(json.dumps(attack.describe())), ATTACKS) == attack


@every_attack
def test_works_under_no_grad_and_inference_mode(attack):
    model, (images, labels) = conv_net(6), batch(6)
    expected = attack(model, images, labels, seeds=[1, 2, 3]).images
    with torch.no_grad():
        assert torch.equal(attack(model, images, labels, seeds=[1, 2, 3]).images, expected)
    with torch.inference_mode():
        assert torch.equal(attack(model, images * 1, labels * 1, seeds=[1, 2, 3]).images, expected)


@every_attack
def test_ignored_pixels_have_no_influence(attack):
    """Whatever the logits are at ignored pixels, the result is the same."""
    images, labels = batch(7)
    model = conv_net(7).eval()
    ignored = (labels == 255)[:, None]

    class Disturbed(nn.Module):
        def forward(self, x):
            logits = model(x)
            rows = [int(((images - one).abs().flatten(1).amax(1)).argmin()) for one in x.detach()]
            return torch.where(ignored[rows], logits * -7 + 3, logits)

    expected = attack(model, images, labels, seeds=[1, 2, 3])
    assert torch.equal(attack(Disturbed(), images, labels, seeds=[1, 2, 3]).images, expected.images)


@pytest.mark.filterwarnings('ignore:.*, less than the radius:UserWarning')
def test_an_image_without_a_pixel_left_to_flip_leaves_the_batch():
    """One image is fooled at once; the passes of the others, and their results, stay as they were."""
    images, labels = batch(8, n=4)
    model = conv_net(8).eval()
    labels[2] = (model(images)[2].argmax(0) + 1) % 4  # wrong from the start
    for attack in (APGD(threat=LINF, steps=12), PGD(threat=LINF, steps=12, keep='lowest_accuracy', step_size=1e-5)):
        whole = attack(model, images, labels, seeds=[1, 2, 3, 4])
        others = attack(model, images[[0, 1, 3]], labels[[0, 1, 3]], seeds=[1, 2, 4])
        assert torch.equal(whole.images[[0, 1, 3]], others.images)
        assert whole.forward_passes[[0, 1, 3]].tolist() == [13, 13, 13]
        assert whole.forward_passes[2] < 13
        assert (whole.accuracy[2] == 0) == (whole.forward_passes[2] < 13)


@pytest.mark.parametrize('kind', [FGSM, BIM, PGD, SegPGD, CosPGD, APGD], ids=lambda kind: kind.__name__)
def test_reaches_the_closed_form_optimum_of_a_linear_model_linf(kind):
    """The worst image of a linear model is clip(x ∓ ε sign w), pixel by pixel."""
    images, _ = batch(9, n=2)
    labels = torch.randint(0, 2, (2, 8, 10), generator=torch.Generator().manual_seed(0))
    model = PixelLinear([1.0, -2.0, 0.5], 0.2)
    direction = model.weight.detach().sign().view(1, 3, 1, 1) * (1 - 2 * labels)[:, None]
    optimum = (images + LINF.radius * direction).clamp(0, 1)
    # Every pixel keeps a gradient only where nothing saturates and no mask applies: cross-entropy from the clean image.
    objective = CrossEntropy() if kind in (FGSM, BIM, PGD, APGD) else kind(threat=LINF).objective
    attack = kind(threat=LINF, objective=objective)
    if kind is APGD:
        attack = APGD(threat=LINF, steps=100, objective=objective)
    result = attack(model, images, labels)
    worst = (model(optimum).argmax(1) == labels).flatten(1).double().mean(1)
    torch.testing.assert_close(result.accuracy, worst)
    if kind in (FGSM, BIM, PGD):
        torch.testing.assert_close(result.images, optimum)


def test_reaches_the_closed_form_optimum_of_a_linear_model_l2():
    """One pixel: the worst image is x - r w / |w|, and the prediction flips just beyond |w·x + b| / |w|."""
    weight = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    images = torch.full((1, 3, 1, 1), 0.5, dtype=torch.float64)
    bias = 0.1 * float(weight.norm()) - float(images.flatten() @ weight)  # at distance 0.1 from the boundary
    model, labels = PixelLinear(weight, bias), torch.ones(1, 1, 1, dtype=torch.int64)
    for kind in (PGD, APGD):
        for radius, accuracy in ((0.099, 1.0), (0.101, 0.0)):
            attack = kind(threat=L2(radius=radius), objective=CrossEntropy(), steps=50)
            assert attack(model, images, labels).accuracy.item() == accuracy
    optimum = images - 0.05 * (weight / weight.norm()).view(1, 3, 1, 1)
    adversarial = BIM(threat=L2(radius=0.05), steps=20)(model, images, labels).images
    torch.testing.assert_close(adversarial, optimum, rtol=0, atol=1e-9)


def test_targeted_attack_moves_predictions_to_the_target():
    model, (images, labels) = conv_net(10).eval(), batch(10)
    rare = int(model(images).argmax(1).flatten().bincount(minlength=4).argmin())
    target = torch.full_like(labels, rare)
    before = (model(images).argmax(1) == rare).flatten(1).double().mean(1)
    for objective in (CrossEntropy(targeted=True), MaskedCrossEntropy(targeted=True), JensenShannon(targeted=True)):
        result = APGD(threat=Linf(radius=0.3), steps=20, objective=objective)(model, images, target)
        assert (result.accuracy > before + 0.02).all()


def test_random_fgsm_steps_by_its_own_draw():
    model, (images, labels) = conv_net(11), batch(11, n=6)
    images = 0.2 + 0.6 * images  # nothing clips
    result = RandomFGSM(threat=LINF)(model, images, labels, seeds=range(6))
    lengths = (result.images - images).abs().flatten(1).amax(1)
    assert (lengths < LINF.radius).all() and lengths.unique().numel() == 6
    full = FGSM(threat=LINF)(model, images, labels).images - images
    share = lengths.view(-1, 1, 1, 1) / LINF.radius
    torch.testing.assert_close(result.images - images, full * share)
    assert (result.backward_passes == 1).all()


def test_random_choice_draws_each_image_by_its_weight_and_costs_what_it_drew():
    model, (images, labels) = conv_net(11), batch(11, n=1)
    n, weights = 4000, {'a': 3, 'b': 1}
    context = AttackContext(model, images.expand(n, -1, -1, -1), labels.expand(n, -1, -1), list(range(n)))
    chosen = RandomChoice(attacks=TWO, weights=weights).chosen(context)
    assert chosen.double().mean() == pytest.approx(0.25, abs=0.025)  # 3.6 standard deviations
    for never, weights in enumerate(({'a': 0, 'b': 1}, {'a': 1, 'b': 0})):
        assert not (RandomChoice(attacks=TWO, weights=weights).chosen(context) == never).any()

    images, labels = batch(11, n=8)
    result = RandomChoice(attacks=TWO)(model, images, labels, seeds=range(8))
    chosen = RandomChoice(attacks=TWO).chosen(AttackContext(model, images, labels, range(8)))
    assert result.backward_passes.tolist() == [(1, 3)[position] for position in chosen.tolist()]
    assert result.forward_passes.tolist() == [(2, 4)[position] for position in chosen.tolist()]
    assert len(chosen.unique()) == 2
    for position, attack in enumerate(TWO.values()):
        mine = chosen == position
        assert torch.equal(result.images[mine], attack(model, images, labels).images[mine])


def test_random_choice_keeps_every_attack_within_its_own_radius():
    model, (images, labels) = conv_net(12), batch(12, n=8)
    attack = RandomChoice(attacks={'near': FGSM(threat=Linf(radius=0.01)), 'far': FGSM(threat=Linf(radius=0.05))})
    assert attack.threat == Linf(radius=0.05)
    lengths = (attack(model, images, labels, seeds=range(8)).images - images).abs().flatten(1).amax(1)
    near = attack.chosen(AttackContext(model, images, labels, range(8))) == 0
    torch.testing.assert_close(lengths, torch.where(near, 0.01, 0.05).double())
    assert 0 < near.sum() < 8


def test_gaussian_noise_has_its_deviation_and_asks_nothing_of_the_model():
    images, labels = torch.full((4, 3, 64, 64), 0.5), torch.zeros(4, 64, 64, dtype=torch.int64)

    def model(_):
        raise AssertionError('the model was asked')

    noise = GaussianNoise(sigma=0.1).perturb(model, images, labels, seeds=range(4)) - images
    assert abs(float(noise.mean())) < 0.002
    assert float(noise.std()) == pytest.approx(0.1, rel=0.02)
    tail = float((noise.abs() > 0.196).float().mean())
    assert tail == pytest.approx(0.05, abs=0.005)
    wide = GaussianNoise(sigma=1.0).perturb(model, images, labels, seeds=range(4))
    assert wide.min() == 0 and wide.max() == 1
    result = GaussianNoise(sigma=0.1)(conv_net(0, dtype=torch.float32), images, labels)
    assert result.forward_passes.tolist() == [1] * 4 and not result.backward_passes.any()


def test_kl_attack_maximises_the_divergence_from_the_clean_prediction():
    model, (images, labels) = conv_net(17).eval(), batch(17, n=4)
    attack = PGD(threat=LINF, steps=8, objective=KullbackLeibler(), random_start=True)
    result = attack(model, images, labels, seeds=range(4))
    start = LINF.random_start(images, range(4))

    def divergence(x):
        clean, other = (model(part).log_softmax(1) for part in (images, x))
        pixels = nn.functional.kl_div(other, clean, log_target=True, reduction='none').sum(1)
        return pixels.where(labels != 255, 0).flatten(1).sum(1)

    assert (divergence(result.images) > 3 * divergence(start)).all()
    # One forward pass for the clean logits, one for the evaluation of the result.
    assert result.forward_passes.tolist() == [10] * 4 and result.backward_passes.tolist() == [8] * 4
    other_labels = torch.where(labels == 255, labels, (labels + 1) % 4)
    assert torch.equal(attack(model, images, other_labels, seeds=range(4)).images, result.images)


def test_step_longer_than_the_budget_is_wide_is_warned_of():
    with pytest.warns(UserWarning, match='step_size 0.1 is more than twice the radius 0.0313725'):
        PGD(threat=LINF, step_size=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        PGD(threat=LINF, step_size='16/255')


def test_keep_chooses_the_iterate():
    model, (images, labels) = conv_net(12).eval(), batch(12, n=6)
    results = {
        keep: PGD(threat=LINF, steps=10, step_size='8/255', keep=keep)(model, images, labels)
        for keep in ('last', 'best_loss', 'lowest_accuracy')
    }

    def loss(result):
        pixels = nn.functional.cross_entropy(model(result.images), labels, ignore_index=255, reduction='none')
        return pixels.flatten(1).sum(1)

    assert (results['lowest_accuracy'].accuracy <= results['last'].accuracy).all()
    assert (results['lowest_accuracy'].accuracy <= results['best_loss'].accuracy).all()
    assert (loss(results['best_loss']) >= loss(results['last']) - 1e-9).all()
    assert (loss(results['best_loss']) >= loss(results['lowest_accuracy']) - 1e-9).all()
    assert results['last'].backward_passes.tolist() == [10] * 6 and results['last'].forward_passes.tolist() == [11] * 6


def test_worst_case_is_the_lowest_member_and_counts_all_passes():
    model, (images, labels) = conv_net(13), batch(13, n=6)
    result = sea('8/255', iterations=10)(model, images, labels, ignore_index=255)
    assert list(result.members) == ['masked_ce', 'balanced_ce', 'js', 'masked_spherical']
    accuracy = torch.stack([member.accuracy for member in result.members.values()])
    assert torch.equal(result.accuracy, accuracy.amin(0))
    first = accuracy.argmin(0).tolist()
    members = list(result.members.values())
    for row, choice in enumerate(first):
        assert torch.equal(result.images[row], members[choice].images[row])
    assert torch.equal(result.forward_passes, sum(member.forward_passes for member in members))
    assert torch.equal(result.backward_passes, sum(member.backward_passes for member in members))
    # 3 + 3 + 4 iterations, one forward pass more for each radius.
    assert members[1].forward_passes.max() == 13 and members[1].backward_passes.max() == 10


@pytest.mark.filterwarnings('ignore:.*, less than the radius:UserWarning')
def test_restarts_are_no_weaker_than_any_run_and_differ():
    model, (images, labels) = conv_net(14), batch(14, n=4)
    inner = PGD(threat=Linf(radius=0.1), steps=1, step_size=0.02)
    restarted = Restarts(attack=inner, restarts=4)(model, images, labels, seeds=[1, 2, 3, 4])
    single = Restarts(attack=inner, restarts=1)(model, images, labels, seeds=[1, 2, 3, 4])
    assert (restarted.accuracy <= single.accuracy).all() and (restarted.accuracy < single.accuracy).any()


def test_radius_reduction_splits_as_published():
    attack = RadiusReduction(attack=APGD(threat=LINF, steps=300))
    assert [(phase.steps, phase.threat.radius) for phase in attack.phases()] == [
        (90, 16 / 255),
        (90, 12 / 255),
        (120, 8 / 255),
    ]
    assert [phase.steps for phase in attack.with_steps(10).phases()] == [3, 3, 4]
    assert [phase.steps for phase in attack.with_steps(1).phases()] == [1]


def test_tsallis_raises_its_order_over_the_whole_run_not_anew_at_each_radius():
    attack = preset('tsallis', '8/255')
    assert isinstance(attack, RadiusReduction) and attack.attack.random_start
    phases = attack.phases()
    assert [(phase.steps, phase.threat.radius) for phase in phases] == [(90, 16 / 255), (90, 12 / 255), (120, 8 / 255)]
    orders = [order for phase in phases for order in phase.objective.orders]
    assert orders == pytest.approx([-2, -1.1, -1.1, -0.2, -0.2, 1])
    balanced = dataclasses.replace(attack.attack, objective=BalancedCrossEntropy())
    restarting = RadiusReduction(attack=balanced)
    assert [phase.objective for phase in restarting.phases()] == 3 * [BalancedCrossEntropy()]


def test_torchvision_style_output_and_plain_functions_are_accepted():
    model, (images, labels) = conv_net(15).eval(), batch(15)
    expected = FGSM(threat=LINF)(model, images, labels).images

    class Dict(nn.Module):
        def forward(self, x):
            return {'out': model(x), 'aux': None}

    assert torch.equal(FGSM(threat=LINF)(Dict(), images, labels).images, expected)
    assert torch.equal(FGSM(threat=LINF)(lambda x: model(x), images, labels).images, expected)


def test_float32_results_stay_in_range_and_dtype():
    model, (images, labels) = conv_net(16, dtype=torch.float32), batch(16, dtype=torch.float32)
    result = sea('4/255', iterations=6)(model, images, labels)
    assert result.images.dtype == torch.float32
    assert float((result.images - images).abs().max()) <= 4 / 255 + 1e-6


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda m, x, y: FGSM(threat=LINF)(m, x * 255, y), r'images must be in \[0, 1\]; found values from'),
        (lambda m, x, y: FGSM(threat=LINF)(m, x[0], y), 'FGSM.images must be a tensor of float32 or float64, of shape'),
        (lambda m, x, y: FGSM(threat=LINF)(m, x.half(), y), 'found float16 of shape'),
        (lambda m, x, y: FGSM(threat=LINF)(m, x, y.int()), 'FGSM.labels must be a tensor of int64, of shape'),
        (lambda m, x, y: FGSM(threat=LINF)(m, x, y[:2]), 'with N = 3'),
        (lambda m, x, y: FGSM(threat=LINF)(m, x, y[:, :4]), r"labels' size .* found \(3, 4, 8, 10\)"),
        (lambda m, x, y: FGSM(threat=LINF)(m, x, y.clamp_max(1) + 3), r'holds the labels \[4\]'),
        (
            lambda m, x, y: FGSM(threat=LINF)(m, x, y, seeds=[1]),
            'seeds must be one for each image, 3 as .*; found 1',
        ),
        (lambda m, x, y: FGSM(threat=LINF)(lambda z: m(z.detach()).detach(), x, y), 'do not depend on the images'),
        (lambda m, x, y: FGSM(threat=LINF)(lambda z: [m(z)], x, y), 'must return a tensor of logits .* found list'),
        (lambda m, x, y: PGD(threat=LINF, steps=0), 'steps must be a positive integer; found 0'),
        (lambda m, x, y: FGSM(threat=LINF, steps=3), 'FGSM takes one step; found steps=3'),
        (lambda m, x, y: PGD(threat=LINF, step_size=0), 'step_size 0 moves nothing'),
        (lambda m, x, y: PGD(threat=LINF, step_size='-1/255'), "step_size '-1/255' is negative"),
        (lambda m, x, y: PGD(threat=LINF, keep='best'), "unknown keep 'best'; did you mean 'best_loss'"),
        (lambda m, x, y: PGD(threat=LINF, objective={'type': 'CrossEntropi'}), "did you mean 'CrossEntropy'"),
        (lambda m, x, y: PGD(threat=LINF, objective=LINF), 'objective must be a objective; found Linf'),
        (lambda m, x, y: APGD(threat=LINF, steps=True), 'steps must be an integer; found True'),
        (lambda m, x, y: sea('4/255', preset='papers'), "unknown SEA preset 'papers'; did you mean 'paper'"),
        (lambda m, x, y: sea('4/255', class_weights='voc_21'), "the SEA preset 'paper' takes no class_weights"),
        (lambda m, x, y: sea('4/0'), 'divides by zero'),
        (lambda m, x, y: sea('4/255', iterations=0), 'steps must be a positive integer; found 0'),
        (lambda m, x, y: preset('seaa', '4/255'), "unknown attack 'seaa'; did you mean 'sea'"),
        (lambda m, x, y: preset('fgsm', '4/255', 10), 'FGSM takes one step'),
        (lambda m, x, y: preset('pgd', '4/255', 0), 'iterations must be positive; found 0'),
        (lambda m, x, y: Restarts(attack=BIM(threat=LINF)), 'BIM draws nothing at random'),
        (lambda m, x, y: Restarts(attack=PGD(threat=LINF), restarts=0), 'restarts must be a positive integer'),
        (lambda m, x, y: RadiusReduction(attack=sea('4/255')), 'RadiusReduction wraps APGD or PGD; found WorstCase'),
        (lambda m, x, y: RadiusReduction(attack=APGD(threat=LINF), shares=[1.0]), '3 factors need as many shares'),
        (lambda m, x, y: RadiusReduction(attack=APGD(threat=LINF), factors=[3, 2, 1.5]), 'end with 1'),
        (lambda m, x, y: RadiusReduction(attack=APGD(threat=LINF), shares=[0.5, 0.3, 0.4]), 'sum to 1'),
        (lambda m, x, y: WorstCase(attacks={}), 'at least one name'),
        (lambda m, x, y: ByRadius(attacks=TWO), 'attacks must have a different radius each; found'),
        (lambda m, x, y: RandomChoice(attacks={}), 'at least one name'),
        (lambda m, x, y: RandomChoice(attacks={'a': 3}), "'a' must be an attack; found 3"),
        (lambda m, x, y: RandomChoice(attacks={'a': FGSM(threat=LINF), 'b': BIM(threat=EUCLID)}), 'of one norm'),
        (lambda m, x, y: RandomChoice(attacks=TWO, weights={'a': 1}), r"name the attacks \['a', 'b'\].* found \['a'\]"),
        (
            lambda m, x, y: RandomChoice(attacks=TWO, weights={'a': 1, 'b': -1}),
            "'b' must be a number from 0 up; found -1",
        ),
        (lambda m, x, y: RandomChoice(attacks=TWO, weights={'a': 0, 'b': 0}), 'all weights are 0'),
        (lambda m, x, y: GaussianNoise(sigma=0), 'GaussianNoise: sigma must be a positive number.*; found 0'),
        (lambda m, x, y: GaussianNoise(sigma='8/255'), r"sigma must be a finite number; found '8/255' \(text\)"),
        (lambda m, x, y: GaussianNoise(sigma=0.1).with_radius(0.1), 'GaussianNoise has no radius'),
        (lambda m, x, y: GaussianNoise(sigma=0.1).with_steps(2), 'takes no steps; found steps=2'),
        (lambda m, x, y: FGSM(threat=LINF, objective=KullbackLeibler()), 'no gradient at the clean image'),
        (lambda m, x, y: APGD(threat=LINF, objective=KullbackLeibler(), random_start=False), 'set random_start=True'),
        (lambda m, x, y: KullbackLeibler(targeted=True), 'no targeted form'),
        (lambda m, x, y: KullbackLeibler()(m(x), y), r'needs clean_logits of shape \(3, 4, 8, 10\); found None'),
        (lambda m, x, y: WorstCase(attacks={'a': FGSM(threat=LINF), 'b': FGSM(threat=EUCLID)}), 'same threat model'),
    ],
)
def test_mistakes_get_a_sentence(call, message):
    model, (images, labels) = conv_net(0), batch(0)
    with pytest.raises(UserError, match=message):
        call(model, images, labels)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_non_finite_logits_name_image_and_iteration(value):
    model, (images, labels) = conv_net(17).eval(), batch(17)
    calls = []

    def sick(x):
        calls.append(len(x))
        logits = model(x)
        return logits if len(calls) < 4 else torch.cat([logits[:1], logits[1:2] * value, logits[2:]])

    with pytest.raises(NonFiniteLogits, match='for image 1 of the batch at iteration 3') as caught:
        APGD(threat=LINF, steps=8)(sick, images, labels)
    assert (caught.value.index, caught.value.iteration) == (1, 3)


class Sick(nn.Module):
    """A model with finite logits whose gradient, from some forward pass on, is not finite for one image."""

    def __init__(self, net, images, index, value, fine=0):
        super().__init__()
        self.net, self.image, self.value, self.fine, self.calls = net, images[index], value, fine, 0

    def forward(self, x):
        self.calls += x.requires_grad
        marked = (x.detach() - self.image).abs().flatten(1).amax(1) <= 0.6
        bad = (marked & (self.calls > self.fine)).view(-1, 1, 1, 1)
        if x.requires_grad:
            x.register_hook(lambda gradient: torch.where(bad & (torch.arange(10) == 3), self.value, gradient))
        return self.net(x)


DIFFERENTIATE = [
    attack for attack in ALL if not isinstance(attack, (GaussianNoise, RandomNoise, Square, TrainedAttack, Patch))
]


@pytest.mark.parametrize('attack', DIFFERENTIATE, ids=lambda a: f'{type(a).__name__}-{ALL.index(a)}')
@pytest.mark.parametrize('value', [float('nan'), float('-inf')])
def test_non_finite_gradients_name_the_image(attack, value):
    model, (images, labels) = conv_net(20).eval(), batch(20, n=4)
    labels[0] = 255
    labels[1] = (model(images)[1].argmax(0) + 1) % 4  # fooled already
    for call in (attack, attack.perturb):
        with pytest.raises(
            NonFiniteGradient, match='NaN or infinite gradient for image 3 of the batch at iteration [01]'
        ):
            call(Sick(model, images, 3, value), images, labels, seeds=[1, 2, 3, 5])


@pytest.mark.parametrize(
    'attack',
    [PGD(threat=threat, steps=6, keep=keep) for threat in (LINF, EUCLID) for keep in ('last', 'lowest_accuracy')]
    + [APGD(threat=LINF, steps=6), APGD(threat=EUCLID, steps=6), ama('8/255', passes=6)],
    ids=repr,
)
def test_non_finite_gradients_name_the_iteration(attack):
    model, (images, labels) = conv_net(21).eval(), batch(21)
    for fine in (1, 3, 5):
        with pytest.raises(NonFiniteGradient, match=f'for image 1 of the batch at iteration {fine}') as caught:
            attack(Sick(model, images, 1, torch.nan, fine), images, labels)
        assert (caught.value.index, caught.value.iteration) == (1, fine)


def test_gradient_of_a_root_at_zero_is_refused_where_signs_would_hide_it():
    """Logits are finite, and the sign of NaN is 0: the attack would leave the image as it is."""
    model, (images, labels) = conv_net(22).eval(), batch(22)
    sick = nn.Sequential(model, RootOfZero())
    assert torch.isfinite(sick(images)).all()
    for attack in (FGSM(threat=LINF), FastNewton(), RandomFGSM(threat=EUCLID), Restarts(attack=PGD(threat=LINF))):
        with pytest.raises(NonFiniteGradient, match='for image 0 of the batch at iteration 0 of the attack; no'):
            attack(sick, images, labels)
    universal = preset('universal', '8/255', 3)
    with pytest.raises(NonFiniteGradient, match='for image 0'):
        universal.train(3 * [[TrainingBatch(sick, images, labels)]])
    noise = SmoothAdv(attack=PGD(threat=EUCLID, steps=2), sigma=0.1)
    with pytest.raises(NonFiniteGradient, match='for image 0'):
        noise.perturb(sick, images, labels)


class RootOfZero(nn.Module):
    def forward(self, logits):
        return logits + (logits * 0).square().sum(1, keepdim=True).sqrt()


def test_probabilities_in_place_of_logits_are_warned_of():
    model, (images, labels) = conv_net(23).eval(), batch(23)
    probabilities = nn.Sequential(model, nn.Softmax(1))
    for attack in (FGSM(threat=LINF), sea('8/255', iterations=3), preset('square', '8/255', 2)):
        with pytest.warns(UserWarning, match='seem to be probabilities; attacks and certificates take logits'):
            attack(probabilities, images, labels)
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            attack(model, images, labels)


@every_attack
def test_messages_name_the_position_in_the_batch_that_was_given(attack):
    """Also where images before it have no valid pixel, or have left the batch."""
    model, (images, labels) = conv_net(20).eval(), batch(20, n=4)
    labels[0] = 255
    labels[1] = (model(images)[1].argmax(0) + 1) % 4  # fooled already

    # These ask nothing of the model before the evaluation.
    for fine_calls in (0,) if isinstance(attack, (GaussianNoise, TrainedAttack)) else (0, 1):
        calls = []

        def sick(x, calls=calls, fine_calls=fine_calls):
            calls.append(len(x))
            marked = (x - images[3]).abs().flatten(1).amax(1) <= 0.6
            return torch.where((marked & (len(calls) > fine_calls)).view(-1, 1, 1, 1), torch.nan, model(x))

        with pytest.raises(NonFiniteLogits, match='for image 3 of the batch'):
            attack(sick, images, labels, seeds=[1, 2, 3, 4])
    wrong = labels.clone()
    wrong[2, 0, 0] = 4
    with pytest.raises(UserError, match=r'image 2 of the batch holds the labels \[4\]'):
        attack(model, images, wrong)


@pytest.mark.parametrize('name', [name for name in PRESETS if PRESETS[name].radius is None])
def test_presets_are_built_with_radius_and_iterations(name):
    attack = preset(name, '4/255') if name == 'fgsm' else preset(name, '4/255', 7)
    assert attack.threat == Linf(radius=4 / 255)
    assert attack.with_radius('1/255').threat == Linf(radius=1 / 255)
    assert needs_class_weights(attack) == (name == 'sea-eccv')
    model, (images, labels) = conv_net(18), batch(18)
    attack = with_class_weights(attack, (0.5, 2, 1, 0.25))
    if name == 'universal':
        attack = attack.train(7 * [[TrainingBatch(model, images, labels)]])
    result = attack(model, images, labels)
    assert LINF.contains(result.images, images).all()
    if name in ('square', 'noise', 'universal'):
        assert result.backward_passes.max() == 0
    elif name not in ('fgsm', 'sea', 'sea-eccv', 'sea-eccv-image'):
        assert result.backward_passes.max() == 7


@pytest.mark.parametrize(
    ('attack', 'title', 'of_nine_steps'),
    [
        (sea('4/255', 30), 'SEA (paper: 4 losses)', 'SEA (paper: 4 losses)'),
        (sea('4/255', 30, 'eccv'), 'SEA (eccv: 3 losses)', 'SEA (eccv: 3 losses)'),
        (sea(0.5, 30, 'eccv-image', 'L2'), 'SEA (eccv-image: 3 losses)', 'SEA (eccv-image: 3 losses)'),
        (ama(0.5, threat='L2'), 'AMA (100 passes)', 'AMA (9 passes)'),
        (ama('4/255', 30, 'sigmoid'), 'AMA (sigmoid, 30 passes)', 'AMA (sigmoid, 9 passes)'),
        (auto('4/255', passes=50), 'auto (50 passes)', 'auto (9 passes)'),
        (adaptive('4/255'), 'adaptive (120 passes)', 'adaptive (9 passes)'),
        (PGD(threat=LINF, steps=3), 'PGD', 'PGD'),
        (preset('tsallis', '4/255'), 'TsallisPGD (300 steps)', 'TsallisPGD (9 steps)'),
        (RadiusReduction(attack=APGD(threat=LINF)), 'RadiusReduction of APGD', 'RadiusReduction of APGD'),
        (WorstCase(attacks=sea('4/255').attacks), 'worst case of 4 attacks', 'worst case of 4 attacks'),
        (Cascade(attacks=auto('4/255').attacks), 'Cascade', 'Cascade'),
    ],
    ids=str,
)
def test_the_label_of_a_preset_travels_with_it(attack, title, of_nine_steps):
    weighed = with_class_weights(attack, (0.5, 2, 1, 0.25))
    rebuilt = build(json.loads(json.dumps(attack.describe())), ATTACKS)
    for one in (attack, rebuilt, weighed, pickle.loads(pickle.dumps(attack)), attack.with_radius(0.01)):
        assert one.title == title
    assert attack.with_steps(9).title == rebuilt.with_radius(0.01).with_steps(9).title == of_nine_steps
    assert ('label' in attack.describe()) == (attack.label != '')


def test_presets_keep_the_lowest_accuracy():
    model, (images, labels) = conv_net(19).eval(), batch(19, n=6)
    clean = ((model(images).argmax(1) == labels) & (labels != 255)).flatten(1).sum(1)
    clean = clean / (labels != 255).flatten(1).sum(1).double()
    assert (preset('bim', '1/255')(model, images, labels).accuracy <= clean).all()
