"""The lowest mIoU over a dataset: against all choices, a naive search, and hand-made cases."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmadv.robustness import Counts, chosen_counts, count, greedy_worst_case, lowest_miou, metrics, worst_case
from mmadv.robustness.lowest_miou import Swaps

SETTINGS = settings(max_examples=60, deadline=None)


@st.composite
def ensembles(draw):
    """Counts of up to 4 images, 3 members and 4 classes, some of which occur in no label."""
    images, members, classes = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = rng.integers(0, draw(st.integers(1, classes)), (images, 3, 4))
    labels[rng.random(labels.shape) < draw(st.sampled_from([0.0, 0.3]))] = 255
    noise = draw(st.sampled_from([0.3, 1.0]))
    counts = {}
    for member in range(members):
        predictions = np.where(rng.random(labels.shape) < noise, rng.integers(0, classes, labels.shape), labels)
        counts[str(member)] = count(np.where(predictions == 255, 0, predictions), labels, classes)
    return counts


def miou_of(members, choice):
    return metrics(chosen_counts(members, np.array(choice)))['mIoU']


def naive_greedy(members, choice):
    """Image by image, every member tried, until a pass changes nothing."""
    changed = True
    while changed:
        changed = False
        for image in range(len(choice)):
            values = [miou_of(members, [*choice[:image], m, *choice[image + 1 :]]) for m in range(len(members))]
            best = min(range(len(members)), key=lambda m: values[m])
            if values[best] < values[choice[image]] - 1e-12:
                choice[image], changed = best, True
    return choice


@given(ensembles())
@SETTINGS
def test_lies_between_the_bound_and_every_start_and_no_choice_is_below_the_bound(members):
    lowest = lowest_miou(members)
    if not next(iter(members.values())).valid.any():
        assert math.isnan(lowest.value) and lowest.to_dict()['value'] is None
        return
    images = len(next(iter(members.values())))
    least = min(miou_of(members, choice) for choice in itertools.product(range(len(members)), repeat=images))
    assert 0 <= lowest.lower_bound <= least + 1e-12
    assert least - 1e-12 <= lowest.value == min(lowest.starts.values())
    assert lowest.value == miou_of(members, lowest.choice) == metrics(lowest.counts)['mIoU']
    assert set(lowest.starts) == {'worst_case', *members, *(f'random {n}' for n in range(1, 5)), 'bound'}


@given(ensembles())
@SETTINGS
def test_every_start_ends_where_no_single_swap_helps(members):
    swaps = Swaps(members)
    images = len(next(iter(members.values())))
    rng = np.random.default_rng(0)
    for choice in swaps.descend(rng.integers(0, len(members), (3, images))):
        value = miou_of(members, choice)
        if math.isnan(value):
            return
        assert swaps.miou(choice) == pytest.approx(value, abs=1e-12)
        for image, member in itertools.product(range(images), range(len(members))):
            swapped = choice.copy()
            swapped[image] = member
            assert miou_of(members, swapped) >= value - 1e-9


@given(ensembles())
@SETTINGS
def test_the_greedy_search_is_the_naive_one(members):
    _, start = worst_case(members)
    counts, choice = greedy_worst_case(members)
    expected = miou_of(members, naive_greedy(members, start.tolist()))
    assert metrics(counts)['mIoU'] == pytest.approx(expected, abs=1e-9, nan_ok=True)
    assert miou_of(members, choice) == pytest.approx(expected, abs=1e-9, nan_ok=True)
    assert lowest_miou(members).starts['worst_case'] == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_searches_side_by_side_do_not_touch_each_other():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 5, (12, 6, 6))
    members = {str(m): count(rng.integers(0, 5, labels.shape), labels, 5) for m in range(4)}
    swaps, starts = Swaps(members), rng.integers(0, 4, (6, 12))
    alone = np.concatenate([swaps.descend(start[None]) for start in starts])
    np.testing.assert_array_equal(swaps.descend(starts), alone)


def rows(*images):
    return np.array(images, dtype=np.int64)


def test_another_start_finds_a_lower_value_than_the_worst_accuracy():
    rng = np.random.default_rng(296)
    labels = rng.integers(0, 3, (4, 3, 4))
    members = {}
    for name in 'abc':
        predictions = np.where(rng.random(labels.shape) < 0.6, rng.integers(0, 3, (4, 1, 1)), labels)
        members[name] = count(predictions, labels, 3)
    lowest = lowest_miou(members)
    least = min(miou_of(members, choice) for choice in itertools.product(range(3), repeat=4))
    assert lowest.value == pytest.approx(least) and lowest.starts['worst_case'] > least + 0.02
    assert least - 0.01 < lowest.lower_bound <= least


def test_the_bound_sees_that_classes_cannot_be_ruined_together():
    # Either member alone ruins one class and leaves the other half of its union.
    label = rows([10, 10], [10, 10])
    a = Counts(rows([0, 10], [0, 10]), rows([0, 20], [0, 20]), label)
    b = Counts(rows([10, 0], [10, 0]), rows([20, 0], [20, 0]), label)
    lowest = lowest_miou({'a': a, 'b': b})
    assert lowest.value == pytest.approx(0.25)  # (0 + 20 / 40) / 2
    assert miou_of({'a': a, 'b': b}, [0, 1]) == pytest.approx(1 / 3)  # 10 / 30 each
    assert lowest.lower_bound == pytest.approx(0.25)  # the lowest ratios of each class alone are 0 and 0


def test_the_bound_is_reached_where_one_member_is_the_worst_for_every_class():
    label = rows([8, 8], [8, 8])
    weak = Counts(rows([8, 8], [8, 8]), label, label)
    strong = Counts(rows([2, 2], [4, 4]), label, label)
    lowest = lowest_miou({'weak': weak, 'strong': strong})
    assert lowest.choice.tolist() == [1, 1]
    assert lowest.value == pytest.approx(6 / 26)
    assert lowest.lower_bound == pytest.approx(lowest.value, abs=1e-9)
    assert lowest.to_dict()['spread'] == pytest.approx(0)
