"""The counts and metrics, against mmseg's IoUMetric, a naive loop and hand-made cases."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmadv.robustness import Counts, count, greedy_worst_case, metrics, worst_case

CLASSES = 4
IGNORE = 255
SETTINGS = settings(max_examples=60, deadline=None)


def naive_counts(predictions, labels, num_classes):
    """Pixel by pixel, in plain Python."""
    result = np.zeros((3, len(labels), num_classes), dtype=np.int64)
    for n in range(len(labels)):
        for prediction, label in zip(predictions[n].ravel().tolist(), labels[n].ravel().tolist(), strict=True):
            if label == IGNORE:
                continue
            result[0, n, label] += prediction == label
            result[1, n, prediction] += 1
            result[2, n, label] += 1
    return Counts(*result)


def naive_metrics(predictions, labels, num_classes):
    """The definitions over lists of pixels, in plain Python."""
    pairs = [(p, y) for p, y in zip(predictions.ravel().tolist(), labels.ravel().tolist(), strict=True) if y != IGNORE]
    ious, accuracies = [], []
    for k in range(num_classes):
        both = sum(p == k and y == k for p, y in pairs)
        either = sum(p == k or y == k for p, y in pairs)
        labelled = sum(y == k for _, y in pairs)
        ious.append(both / either if either else None)
        accuracies.append(both / labelled if labelled else None)

    def mean(values):
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else math.nan

    per_image = []
    for prediction, label in zip(predictions, labels, strict=True):
        valid = label != IGNORE
        if valid.any():
            per_image.append(float((prediction == label)[valid].mean()))
    return {
        'aAcc': sum(p == y for p, y in pairs) / len(pairs) if pairs else math.nan,
        'aAcc_image_mean': mean(per_image),
        'mAcc': mean(accuracies),
        'mIoU': mean(ious),
        'IoU': ious,
        'Acc': accuracies,
        'images': len(per_image),
        'pixels': len(pairs),
    }


@st.composite
def batches(draw, members=1):
    shape = (draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    highest = draw(st.integers(1, CLASSES))
    labels = rng.integers(0, highest, shape)
    labels[rng.random(shape) < draw(st.sampled_from([0.0, 0.3, 1.0]))] = IGNORE
    return labels, [rng.integers(0, CLASSES, shape) for _ in range(members)]


@given(batches())
@SETTINGS
def test_counts_agree_with_a_naive_loop(batch):
    labels, (predictions,) = batch
    counts, naive = count(predictions, labels, CLASSES), naive_counts(predictions, labels, CLASSES)
    np.testing.assert_array_equal(counts.intersection, naive.intersection)
    np.testing.assert_array_equal(counts.prediction, naive.prediction)
    np.testing.assert_array_equal(counts.label, naive.label)


@given(batches())
@SETTINGS
def test_metrics_agree_with_a_naive_loop(batch):
    labels, (predictions,) = batch
    actual, naive = metrics(count(predictions, labels, CLASSES)), naive_metrics(predictions, labels, CLASSES)
    for name, value in naive.items():
        expected = np.array([math.nan if item is None else item for item in np.atleast_1d(np.array(value))], float)
        np.testing.assert_allclose(np.atleast_1d(actual[name]), expected, rtol=1e-12, err_msg=name)


@given(batches())
@SETTINGS
def test_metrics_agree_with_iou_metric(batch):
    iou_metric = pytest.importorskip('mmseg.evaluation').IoUMetric
    labels, (predictions,) = batch
    areas = [
        iou_metric.intersect_and_union(torch.tensor(p), torch.tensor(y), CLASSES, IGNORE)
        for p, y in zip(predictions, labels, strict=True)
    ]
    sums = [sum(area) for area in zip(*areas, strict=True)]
    theirs = iou_metric.total_area_to_metrics(*sums)
    ours = metrics(count(predictions, labels, CLASSES))
    np.testing.assert_allclose(ours['aAcc'], theirs['aAcc'], rtol=1e-6)
    np.testing.assert_allclose(ours['IoU'], theirs['IoU'], rtol=1e-6)
    np.testing.assert_allclose(ours['Acc'], theirs['Acc'], rtol=1e-6)
    if not np.isnan(theirs['IoU']).all():
        np.testing.assert_allclose(ours['mIoU'], np.nanmean(theirs['IoU']), rtol=1e-6)
        np.testing.assert_allclose(ours['mAcc'], np.nanmean(theirs['Acc']), rtol=1e-6)


@given(batches(), st.randoms())
@SETTINGS
def test_counts_do_not_depend_on_batching_or_order(batch, random):
    labels, (predictions,) = batch
    whole = count(predictions, labels, CLASSES)
    order = list(range(len(labels)))
    random.shuffle(order)
    parts = Counts.concatenate([count(predictions[i : i + 1], labels[i : i + 1], CLASSES) for i in order])
    np.testing.assert_array_equal(parts.intersection, whole.select(order).intersection)
    assert metrics(parts)['mIoU'] == pytest.approx(metrics(whole)['mIoU'], nan_ok=True)


@given(batches(members=3))
@SETTINGS
def test_worst_case_is_the_lowest_accuracy_and_the_first_of_equals(batch):
    labels, predictions = batch
    members = {str(i): count(prediction, labels, CLASSES) for i, prediction in enumerate(predictions)}
    worst, choice = worst_case(members)
    for n in range(len(labels)):
        correct = [int(((p[n] == labels[n]) & (labels[n] != IGNORE)).sum()) for p in predictions]
        assert choice[n] == correct.index(min(correct))
        np.testing.assert_array_equal(worst.prediction[n], members[str(choice[n])].prediction[n])
        np.testing.assert_array_equal(worst.intersection[n], members[str(choice[n])].intersection[n])


@given(batches(members=3))
@SETTINGS
def test_greedy_worst_case_never_exceeds_the_per_image_one_and_is_a_local_minimum(batch):
    labels, predictions = batch
    members = {str(i): count(prediction, labels, CLASSES) for i, prediction in enumerate(predictions)}
    start, _ = worst_case(members)
    end, choice = greedy_worst_case(members)
    if not end.valid.any():
        return
    assert metrics(end)['mIoU'] <= metrics(start)['mIoU'] + 1e-9
    stacked = np.stack(predictions)
    for n in range(len(labels)):
        for member in range(3):
            swapped = choice.copy()
            swapped[n] = member
            chosen = stacked[swapped, np.arange(len(labels))]
            assert metrics(count(chosen, labels, CLASSES))['mIoU'] >= metrics(end)['mIoU'] - 1e-9


def test_tie_takes_the_first_member_and_its_iou():
    labels = np.array([[[0, 0, 1, 1]]])
    members = {
        'a': count(np.array([[[0, 0, 0, 0]]]), labels, 3),
        'b': count(np.array([[[0, 2, 1, 2]]]), labels, 3),
    }
    counts, choice = worst_case(members)
    assert choice.tolist() == [0]
    assert metrics(counts)['mIoU'] == pytest.approx((2 / 4 + 0) / 2)
    counts, choice = greedy_worst_case(members)
    assert choice.tolist() == [0]  # b: (1/2 + 1/2 + 0) / 3 is higher
    assert metrics(members['b'])['mIoU'] == pytest.approx(1 / 3)


def test_image_without_valid_pixels_is_in_no_count():
    labels = torch.tensor([[[0, 1]], [[255, 255]]])
    counts = count(torch.tensor([[[0, 0]], [[1, 1]]]), labels, 2)
    assert counts.valid.tolist() == [2, 0]
    np.testing.assert_array_equal(counts.accuracy, [0.5, np.nan])
    actual = metrics(counts)
    assert (actual['aAcc'], actual['aAcc_image_mean'], actual['images'], actual['pixels']) == (0.5, 0.5, 1, 2)


def test_image_mean_and_pixel_accuracy_differ():
    labels = np.array([[[0, 0, 0, 255]], [[0, 255, 255, 255]]])
    predictions = np.array([[[0, 0, 0, 0]], [[1, 1, 1, 1]]])
    actual = metrics(count(predictions, labels, 2))
    assert actual['aAcc'] == 0.75
    assert actual['aAcc_image_mean'] == 0.5


@pytest.mark.parametrize(
    ('predictions', 'labels', 'message'),
    [
        (np.zeros((1, 2, 2), int), np.full((1, 2, 2), 2), r'labels must lie in \[0, 2\), found values from 2 to 2'),
        (np.zeros((1, 2, 2), int), np.full((1, 2, 2), -1), r'labels must lie in \[0, 2\)'),
        (np.full((1, 2, 2), 3), np.zeros((1, 2, 2), int), r'predictions must lie in \[0, 2\)'),
        (np.zeros((1, 2, 3), int), np.zeros((1, 2, 2), int), r'labels must be of shape \(N, H, W\) with W = 3'),
        (
            np.zeros((1, 2, 2)),
            np.zeros((1, 2, 2), int),
            'predictions must be a tensor or an array of integers, .* found float64',
        ),
    ],
)
def test_refused_input(predictions, labels, message):
    with pytest.raises(ValueError, match=message):
        count(predictions, labels, 2)


def test_members_of_other_images_are_refused():
    one = count(np.zeros((1, 1, 2), int), np.zeros((1, 1, 2), int), 2)
    other = count(np.zeros((1, 1, 2), int), np.ones((1, 1, 2), int), 2)
    with pytest.raises(ValueError, match='b was counted on other images than a'):
        worst_case({'a': one, 'b': other})
    with pytest.raises(ValueError, match='members must hold at least one'):
        worst_case({})
