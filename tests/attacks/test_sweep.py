"""Results at a smaller radius as candidates at a larger one."""

import dataclasses

import torch
from toy_models import batch, conv_net

from mmadv.attacks import APGD, Linf, auto, sea
from mmadv.attacks.cascade import only
from mmadv.attacks.result import AttackResult
from mmadv.attacks.sweep import leading, strengthened, unsolved, without_passes


def result(accuracy, mark, forward, members=None):
    n = len(accuracy)
    return AttackResult(
        images=torch.full((n, 3, 2, 2), mark),
        predictions=torch.full((n, 2, 2), int(10 * mark)),
        accuracy=torch.tensor(accuracy, dtype=torch.float64),
        forward_passes=torch.full((n,), forward),
        backward_passes=torch.full((n,), forward - 1),
        members=members or {},
    )


def test_stronger_smaller_radius_stays_and_solved_images_cost_nothing():
    smaller, larger = result([0.5, 0.0, 0.4], 0.1, 9), result([0.6, 0.3], 0.2, 7)
    left = unsolved(smaller, targeted=False)
    assert left.tolist() == [True, False, True]
    merged = strengthened(without_passes(smaller), left.nonzero().squeeze(1), larger, targeted=False)
    assert merged.accuracy.tolist() == [0.5, 0.0, 0.3]
    assert merged.predictions[:, 0, 0].tolist() == [1, 1, 2]
    torch.testing.assert_close(merged.images[:, 0, 0, 0], torch.tensor([0.1, 0.1, 0.2]))
    assert merged.forward_passes.tolist() == [7, 0, 7] and merged.backward_passes.tolist() == [6, 0, 6]


def test_targeted_results_get_larger():
    smaller, larger = result([0.5, 1.0], 0.1, 9), result([0.4], 0.2, 7)
    rows = unsolved(smaller, targeted=True).nonzero().squeeze(1)
    assert rows.tolist() == [0]
    assert strengthened(smaller, rows, larger, targeted=True).accuracy.tolist() == [0.5, 1.0]


def test_every_member_has_its_own_candidate_and_an_image_is_solved_if_all_members_solved_it():
    smaller = result([0.0, 0.2], 0.1, 9, {'a': result([0.0, 0.6], 0.1, 4), 'b': result([0.3, 0.2], 0.3, 5)})
    assert unsolved(smaller, targeted=False).tolist() == [True, True]
    larger = result([0.1, 0.1], 0.2, 7, {'a': result([0.5, 0.1], 0.2, 3), 'b': result([0.1, 0.5], 0.4, 4)})
    merged = strengthened(smaller, torch.tensor([0, 1]), larger, targeted=False)
    assert merged.members['a'].accuracy.tolist() == [0.0, 0.1] and merged.members['b'].accuracy.tolist() == [0.1, 0.2]
    assert merged.accuracy.tolist() == [0.0, 0.1]


def test_results_are_in_the_larger_ball_and_agree_with_the_model():
    model, (images, labels) = conv_net(5).eval(), batch(5)
    attack = sea('4/255', iterations=4)
    small = attack(model, images, labels, seeds=[1, 2, 3])
    # A weak attack at the larger radius: its candidates win on some images.
    weak = dataclasses.replace(
        attack, attacks={name: APGD(threat=Linf(radius='8/255'), steps=1) for name in attack.attacks}
    )
    large = weak(model, images, labels, seeds=[1, 2, 3])
    merged = strengthened(small, torch.arange(3), large, targeted=False)
    assert torch.equal(merged.accuracy, torch.minimum(small.accuracy, large.accuracy))
    assert torch.equal(model(merged.images).argmax(1), merged.predictions)
    assert weak.threat.contains(merged.images, images).all()


def test_parts_that_led_at_the_first_radius_run_at_the_others():
    attack, clean = auto('4/255', 8), torch.full((4,), 0.9, dtype=torch.float64)
    probe = result([0.1, 0.5, 0.9, 0.5], 0.1, 9)
    parts = {
        'ama': [0.1, 0.8, 0.9, 0.9],
        'furthest': [0.4, 0.5, 0.9, 0.5],
        'furthest_again': [0.29, 0.6, 0.9, torch.nan],
        'js': [0.1, 0.4, 0.9, torch.nan],
    }
    probe.parts = {name: torch.tensor(values, dtype=torch.float64) for name, values in parts.items()}
    chosen = {tuple(one.attacks): rows.tolist() for one, rows in leading(attack, probe, clean, torch.arange(4))}
    assert chosen == {
        ('ama', 'furthest_again', 'js'): [0],
        ('furthest', 'furthest_again', 'js'): [1],
        ('ama', 'furthest', 'furthest_again', 'js'): [2],  # no part took anything
        ('furthest', 'js'): [3],
    }
    assert leading(APGD(threat=Linf(radius=0.1)), probe, clean, torch.tensor([1]))[0][1].tolist() == [1]
    assert leading(attack, probe, clean, torch.arange(0)) == []


def test_a_part_has_the_noise_and_the_result_that_it_has_in_the_whole():
    model, (images, labels) = conv_net(5).eval(), batch(5)
    labels[1] = 255
    attack = auto('8/255', 12)
    whole = attack(model, images, labels, seeds=[1, 2, 3])
    assert list(whole.parts) == ['ama', 'furthest', 'furthest_again', 'js'] and whole.parts['ama'][1].isnan()
    for name in ('ama', 'furthest', 'furthest_again'):
        alone = only(attack, [name])(model, images, labels, seeds=[1, 2, 3])
        better = torch.minimum(whole.parts[name], alone.accuracy)  # the clean image is a candidate of the part alone
        torch.testing.assert_close(alone.accuracy, better, equal_nan=True)
        assert bool((alone.forward_passes < whole.forward_passes)[[0, 2]].all())
    lowest = torch.stack(list(whole.parts.values())).amin(0)
    torch.testing.assert_close(torch.minimum(whole.accuracy, lowest), whole.accuracy, equal_nan=True)
