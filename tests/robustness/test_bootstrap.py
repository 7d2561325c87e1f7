"""Intervals against a plain resampling loop, and subsets of an ensemble against the worst case."""

import numpy as np
import pytest

from mmadv.robustness import (
    Counts,
    bootstrap,
    count,
    every_subset,
    metrics,
    paired_bootstrap,
    percentile_interval,
    resampled_miou,
    wins,
    worst_case,
)
from mmadv.robustness.bootstrap import _resampled


def some_counts(images=7, classes=4, seed=0, void=False):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, (images, 5, 6))
    labels[:, 0, :2] = 255
    if void:
        labels[2] = 255
    predictions = np.where(generator.random(labels.shape) < 0.6, labels, generator.integers(0, classes, labels.shape))
    return count(np.where(predictions == 255, 0, predictions), labels, classes)


def test_resampled_metrics_are_those_of_the_drawn_images():
    counts = some_counts()
    weights = np.random.default_rng(1).multinomial(7, np.full(7, 1 / 7), size=20)
    actual = _resampled(counts, weights)
    for n, weight in enumerate(weights):
        plain = metrics(counts.select(np.repeat(np.arange(7), weight)))
        for name, values in actual.items():
            assert values[n] == pytest.approx(plain[name], abs=1e-12)


def test_intervals_are_percentiles_of_resampled_metrics():
    counts, generator = some_counts(images=20), np.random.default_rng(9)
    plain = [metrics(counts.select(generator.integers(0, 20, 20))) for _ in range(2000)]
    for name, (low, high) in bootstrap(counts, samples=3000).items():
        expected = np.percentile([values[name] for values in plain], [2.5, 97.5])
        assert (low, high) == pytest.approx(expected, abs=0.006)
        assert low < metrics(counts)[name] < high


def test_intervals_depend_on_the_seed_alone_and_leave_void_images_out():
    counts = some_counts(void=True)
    assert bootstrap(counts) == bootstrap(counts) == bootstrap(counts.select(counts.valid > 0))
    assert bootstrap(counts) != bootstrap(counts, seed=1)
    assert all(value is None for value in bootstrap(counts.select([0])).values())
    narrow, wide = (bootstrap(counts, level=level)['mIoU'] for level in (0.5, 0.99))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_a_class_that_is_nowhere_is_in_no_mean():
    counts = some_counts()
    wider = Counts(*(np.pad(area, ((0, 0), (0, 2))) for area in (counts.intersection, counts.prediction, counts.label)))
    for name, interval in bootstrap(counts).items():
        assert bootstrap(wider)[name] == pytest.approx(interval)


def test_every_subset_and_who_wins():
    label = some_counts().label
    members = {}
    for n, name in enumerate('abc'):
        counts = some_counts(seed=n + 1)
        hits = np.minimum(counts.intersection, label)
        members[name] = Counts(hits, np.maximum(counts.prediction, hits), label)
    rows = every_subset(members)
    assert [''.join(row['members']) for row in rows] == ['a', 'b', 'c', 'ab', 'ac', 'bc', 'abc']
    assert rows[-1]['mIoU'] == metrics(worst_case(members)[0])['mIoU']
    by_name = {''.join(row['members']): row['aAcc_image_mean'] for row in rows}
    assert by_name['ab'] <= min(by_name['a'], by_name['b']) and by_name['abc'] <= min(by_name.values())
    correct = np.stack([counts.correct for counts in members.values()])
    for n, name in enumerate('abc'):
        others = np.delete(correct, n, axis=0).min(axis=0)
        assert wins(members)[name] == {
            'worst': int((correct[n] <= others).sum()),
            'alone': int((correct[n] < others).sum()),
        }
    with pytest.raises(ValueError, match='9 members have 511 subsets; give at most eight'):
        every_subset({str(n): members['a'] for n in range(9)})


def test_paired_intervals_are_percentiles_of_differences_on_the_same_draws():
    counts, reference = some_counts(images=20), some_counts(images=20, seed=0)
    hits = np.minimum(counts.intersection + 1, counts.label)
    better = Counts(hits, np.maximum(counts.prediction, hits), counts.label)
    generator = np.random.default_rng(9)
    drawn = [generator.integers(0, 20, 20) for _ in range(2000)]
    plain = [(metrics(better.select(rows)), metrics(reference.select(rows))) for rows in drawn]
    for name, (low, high) in paired_bootstrap(better, reference, samples=3000).items():
        expected = np.percentile([one[name] - other[name] for one, other in plain], [2.5, 97.5])
        assert (low, high) == pytest.approx(expected, abs=0.004)
        assert 0 < low < high < bootstrap(better)[name][1] - bootstrap(reference)[name][0]
    assert set(paired_bootstrap(counts, reference).values()) == {(0.0, 0.0)}


def test_a_pair_must_be_of_the_same_images():
    with pytest.raises(ValueError, match='counts and reference of the same images'):
        paired_bootstrap(some_counts(), some_counts(seed=1))


def test_resampled_mious_are_those_of_the_bootstrap():
    counts = some_counts(void=True)
    values = resampled_miou(counts, samples=200, seed=3)
    assert percentile_interval(values) == pytest.approx(bootstrap(counts, samples=200, seed=3)['mIoU'], abs=1e-12)
    assert np.isnan(resampled_miou(counts.select([0]), samples=3)).all()
    assert percentile_interval(np.full(3, np.nan)) is None
