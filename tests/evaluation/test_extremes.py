"""The least and the most robust images, whatever the order and the parts they come in."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmadv.evaluation import ImageRecord
from mmadv.evaluation.extremes import Extremes, robustness, robustness_of_record


def merged(parts, number):
    total = Extremes(number)
    for part in parts:
        extremes = Extremes(number)
        for index, value in part:
            extremes.offer(index, value)
        for index, value in extremes.values.items():
            total.offer(index, value)
    return total.kinds()


@given(
    st.lists(st.one_of(st.none(), st.sampled_from([0.0, 0.25, 0.5, 1.0])), max_size=12),
    st.integers(0, 3),
    st.randoms(use_true_random=False),
)
def test_any_order_and_any_parts_give_the_extremes_of_all(values, number, generator):
    images = list(enumerate(values))
    ranked = sorted((value, index) for index, value in images if value is not None)
    least = [index for _, index in ranked[:number]]
    most = [index for _, index in sorted((-value, index) for value, index in ranked)[:number]]
    expected = {**dict.fromkeys(most, 'most robust'), **dict.fromkeys(least, 'least robust')}
    generator.shuffle(images)
    cut = generator.randint(0, len(images))
    assert merged([images[:cut], images[cut:]], number) == expected


def test_offers_tell_whether_the_image_is_one_of_them():
    extremes = Extremes(1)
    assert [extremes.offer(n, value) for n, value in enumerate([0.5, 0.7, 0.6, 0.2, None])] == [
        True,
        True,
        False,
        True,
        False,
    ]
    assert extremes.kinds() == {1: 'most robust', 3: 'least robust'}
    assert extremes.offer(3, 0.8)  # done again, in the place of the first time
    assert extremes.values == {1: 0.7, 3: 0.8} and extremes.kinds() == {1: 'least robust', 3: 'most robust'}


def test_robustness_is_the_mean_over_radii_of_the_worst_member():
    attacked = {
        '1/255': {'js': [[0, 5, 6, 8], [2, 0, 4, 2]], 'ce': [[0, 3, 3, 8], [2, 1, 7, 2]]},
        '2/255': {'js': [[0, 2, 2, 8]], 'ce': [[0, 8, 10, 8]]},
    }
    record = ImageRecord(0, 'a.png', None, 'SEA', 255, {}, [[0, 6, 7, 8], [2, 1, 1, 2]], attacked)
    assert robustness_of_record(record) == pytest.approx((4 + 2) / (2 * 10)) == robustness([4, 2], 10)
    assert robustness_of_record(replace(record, attacked={})) == 0.7
    assert robustness_of_record(replace(record, clean=[], attacked={})) is None
