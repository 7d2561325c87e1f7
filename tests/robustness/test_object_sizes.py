"""Accuracy by object size, against a flood fill in plain Python."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmadv.robustness.object_sizes import EDGES, hits_by_size, label_regions

SETTINGS = settings(max_examples=50, deadline=None)


@st.composite
def label_maps(draw):
    shape = (draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    label = rng.integers(0, draw(st.integers(1, 4)), shape)
    label[rng.random(shape) < draw(st.sampled_from([0.0, 0.3, 1.0]))] = 255
    return label, rng.integers(0, 4, shape)


def flood_fill(label):
    """Sets of pixels, one for each object."""
    left = {(y, x) for y, x in np.ndindex(label.shape) if label[y, x] != 255}
    regions = []
    while left:
        stack = [left.pop()]
        region = set(stack)
        while stack:
            y, x = stack.pop()
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            same = {pixel for pixel in near if label[pixel] == label[y, x]}
            left -= same
            region |= same
            stack += same
        regions.append(frozenset(region))
    return regions


@given(label_maps())
@SETTINGS
def test_regions_are_those_of_a_flood_fill(maps):
    label, _ = maps
    regions, number = label_regions(label)
    own = [frozenset(zip(*np.nonzero(regions == n), strict=True)) for n in range(1, number + 1)]
    assert {frozenset((int(y), int(x)) for y, x in region) for region in own} == set(flood_fill(label))
    assert ((regions == 0) == (label == 255)).all()


@given(label_maps())
@SETTINGS
def test_hits_are_those_counted_object_by_object(maps):
    label, prediction = maps
    sizes, (ours, all_correct) = hits_by_size(torch.from_numpy(label), [prediction, torch.from_numpy(label)])
    expected = {}
    for region in flood_fill(label):
        size = sum(len(region) >= edge * label.size for edge in EDGES)
        correct = sum(prediction[pixel] == label[pixel] for pixel in region)
        row = expected.setdefault(size, [0, 0, 0, 0.0])
        for n, value in enumerate((1, len(region), correct, correct / len(region))):
            row[n] += value
    assert sizes == [[size, *expected[size][:2]] for size in sorted(expected)]
    for row, size in zip(ours, sorted(expected), strict=True):
        assert row == pytest.approx(expected[size][2:])
    assert all_correct == [[pixels, objects] for _, objects, pixels in sizes]


def test_an_object_on_an_edge_is_of_the_larger_size():
    label = np.zeros((100, 100), int)
    label[0, :10] = 1  # 10 of 10 000 pixels: 0.1 %
    label[50, :9] = 2
    sizes, _ = hits_by_size(label, [])
    assert sizes == [[0, 1, 9], [1, 1, 10], [3, 1, 9981]]


def test_another_ignore_index_and_diagonal_neighbours():
    label = np.array([[7, 1, 0], [1, 7, 0]])
    regions, number = label_regions(label, ignore_index=7)
    assert number == 2 and regions[0, 1] == regions[1, 0] and regions[0, 0] == regions[1, 1] == 0
