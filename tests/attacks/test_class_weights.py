"""The class weights of the masked balanced cross-entropy: constants, label frequencies, and how attacks get them."""

import json
from pathlib import Path

import pytest
import torch

from mmadv.attacks import (
    APGD,
    CrossEntropy,
    JensenShannon,
    Linf,
    MaskedBalancedCrossEntropy,
    MaskedCrossEntropy,
    Restarts,
    WorstCase,
    sea,
)
from mmadv.attacks.class_weights import (
    PUBLISHED,
    class_weights_of,
    frequency_weights,
    needs_class_weights,
    with_class_weights,
)
from mmadv.attacks.pixel_scores import PixelScores
from mmadv.errors import UserError
from mmadv.registry import ATTACKS, build

LINF = Linf(radius='4/255')


def scores(classes=3):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, classes, 4, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (2, 4, 5), generator=generator)
    labels[:, 1:] = logits.argmax(1)[:, 1:]  # pixels still to flip
    labels[0, 0, :2] = 255
    return PixelScores(logits, labels)


def test_published_constants_are_those_of_the_published_code():
    stored = json.loads((Path(__file__).parents[1] / 'data' / 'sea_class_weights.json').read_text())
    assert {name: list(values) for name, values in PUBLISHED.items()} == {
        name: values for name, values in stored.items() if name != 'source'
    }


@pytest.mark.parametrize('name', PUBLISHED)
def test_published_constants_are_frequency_weights(name):
    """They add up to 1, so they are inverse frequencies over their sum."""
    assert sum(PUBLISHED[name]) == pytest.approx(1, abs=1e-5)
    frequencies = [round(10**9 / weight) for weight in PUBLISHED[name]]
    assert frequency_weights(frequencies) == pytest.approx(PUBLISHED[name], rel=1e-4)


def test_frequency_weights():
    assert frequency_weights([6, 3, 0, 2]) == pytest.approx((1 / 6, 1 / 3, 0, 1 / 2), rel=1e-5)
    with pytest.raises(UserError, match='no class has a labelled pixel'):
        frequency_weights([0, 0])


@pytest.mark.parametrize('name', PUBLISHED)
def test_a_name_stands_for_its_constants(name):
    pixel_scores = scores(len(PUBLISHED[name]))
    by_name, by_value = (
        MaskedBalancedCrossEntropy(class_weights=weights).value(pixel_scores, 0.0)
        for weights in (name, PUBLISHED[name])
    )
    assert torch.equal(by_name, by_value) and by_name.sum() > 0


def test_nothing_divides_by_the_sum_of_the_weights():
    pixel_scores = scores()
    once, twice, ones = (
        MaskedBalancedCrossEntropy(class_weights=weights).value(pixel_scores, 0.0)
        for weights in ((1, 2, 3), (2, 4, 6), (1, 1, 1))
    )
    torch.testing.assert_close(twice, 2 * once)
    torch.testing.assert_close(ones, MaskedCrossEntropy().value(pixel_scores, 0.0))


@pytest.mark.parametrize('objective', sea('4/255', preset='eccv', class_weights=(1, 2, 3)).attacks.values(), ids=str)
def test_all_three_losses_are_tracked_by_the_plain_cross_entropy(objective):
    pixel_scores = scores()
    assert torch.equal(objective.attack.objective.tracked(pixel_scores, 0.3), CrossEntropy().value(pixel_scores, 0.3))


def test_weights_reach_every_objective_that_waits_for_them_and_no_other():
    waiting = APGD(threat=LINF, steps=5, objective=MaskedBalancedCrossEntropy(targeted=False))
    own = APGD(threat=LINF, steps=5, objective=MaskedBalancedCrossEntropy(class_weights=(1, 2)))
    js = APGD(threat=LINF, steps=5, objective=JensenShannon())
    attack = WorstCase(attacks={'a': Restarts(attack=waiting, restarts=2), 'b': own, 'c': js})
    assert needs_class_weights(attack) and not needs_class_weights(js) and not needs_class_weights(None)
    done = with_class_weights(attack, 'voc_21')
    assert class_weights_of(done) == ['voc_21', (1.0, 2.0)]
    assert not needs_class_weights(done)
    assert done.attacks['b'] == own and done.attacks['c'] == js
    assert done.attacks['a'].attack == APGD(
        threat=LINF, steps=5, objective=MaskedBalancedCrossEntropy(class_weights='voc_21')
    )


def test_described_weights_build_the_same_attack():
    for weights in ('voc_21', (0.5, 0.25, 0.25)):
        attack = sea('4/255', preset='eccv', class_weights=weights)
        described = json.loads(json.dumps(attack.describe()))
        objective = described['attacks']['masked_balanced_ce']['attack']['objective']
        assert objective['class_weights'] == (weights if isinstance(weights, str) else list(weights))
        assert build(described, ATTACKS) == attack


def test_an_attack_without_weights_does_not_run():
    model = torch.nn.Conv2d(3, 3, 1)
    images, labels = torch.rand(1, 3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long)
    with pytest.raises(UserError, match="needs the class weights of the data set: give class_weights='voc_21'"):
        sea('4/255', 3, 'eccv')(model, images, labels)
    with pytest.raises(UserError, match=r"has 21 class weights .'voc_21'., but the model has 3 classes"):
        sea('4/255', 3, 'eccv', class_weights='voc_21')(model, images, labels)


@pytest.mark.parametrize(
    ('weights', 'message'),
    [
        ('voc21', "unknown class_weights 'voc21'; did you mean 'voc_21'"),
        ((1, -1), 'must be finite, none negative and not all zero'),
        ((0, 0), 'must be finite, none negative and not all zero'),
        ((1, float('nan')), r'class_weights\[1\] must be a finite number; found nan'),
        (3, 'class_weights must be a text or a list of numbers; found 3'),
        (('a', 'b'), r"class_weights\[0\] must be a finite number; found 'a' \(text\)"),
    ],
)
def test_wrong_weights_are_one_sentence(weights, message):
    with pytest.raises(UserError, match=message):
        MaskedBalancedCrossEntropy(class_weights=weights)
