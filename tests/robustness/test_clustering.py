"""Clustered representatives: k-means against a naive version, and the targets that its means give."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmadv.errors import UserError
from mmadv.robustness import ClassMean, NearestClusterMean, NearestNeighbour, cluster_means, draw_bank

SETTINGS = settings(max_examples=25, deadline=None)


def groups(seed, sizes, side=3):
    """Returns examples in groups that lie far apart, in random order, and the number of each one's group."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.eye(len(sizes), side * side, dtype=torch.float64)
    number = torch.cat([torch.full((size,), n) for n, size in enumerate(sizes)])
    noise = 0.02 * torch.rand(len(number), side * side, generator=generator, dtype=torch.float64)
    order = torch.randperm(len(number), generator=generator)
    return (0.9 * centres[number] + noise)[order].view(-1, 1, side, side), number[order]


@given(st.integers(0, 10**6), st.lists(st.integers(1, 6), min_size=1, max_size=5))
@SETTINGS
def test_groups_that_lie_apart_are_the_clusters(seed, sizes):
    examples, number = groups(seed, sizes)
    expected = {tuple(examples[number == n].mean(0).flatten().tolist()) for n in range(len(sizes))}
    actual = cluster_means(examples, len(sizes), seed)
    assert actual.shape == (len(sizes), 1, 3, 3)
    for mean in expected:
        assert min(np.abs(np.subtract(mean, one)).max() for one in actual.flatten(1).tolist()) < 1e-12


@given(st.integers(0, 10**6), st.integers(1, 8))
@SETTINGS
def test_every_mean_is_that_of_the_examples_it_is_nearest_to(seed, clusters):
    """The fixed point of k-means, written out."""
    examples = np.random.default_rng(seed).random((12, 2, 3))
    means = cluster_means(torch.from_numpy(examples), clusters, seed).numpy()
    members = [[] for _ in means]
    for example in examples:
        distances = [((example - mean) ** 2).sum() for mean in means]
        members[distances.index(min(distances))].append(example)
    assert len(means) == clusters
    for mean, own in zip(means, members, strict=True):
        if own:
            np.testing.assert_allclose(mean, np.mean(own, 0), atol=1e-12)


def test_equal_examples_give_one_cluster_each():
    examples = torch.tensor([[0.0, 1], [0, 1], [1, 0], [1, 0], [1, 0]])
    assert cluster_means(examples, 4).sort(0).values.tolist() == [[0, 0], [1, 1]]


def bank_of_digits():
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.rand(30, 1, 4, 4, generator=generator), torch.arange(30) % 3
    return images, draw_bank(images, labels, num_classes=3, per_class=8, seed=1)


def test_the_direction_leads_to_the_nearest_mean():
    images, bank = bank_of_digits()
    classes = torch.arange(3).expand(30, 3)
    actual = NearestClusterMean(bank, clusters=3, seed=5)(images, classes)
    for k in range(3):
        means = cluster_means(bank.examples[k], 3, 5).numpy()
        for image, direction in zip(images.numpy(), actual[:, k].numpy(), strict=True):
            others = [mean - image for mean in means if (mean != image).any()]
            nearest = min(others, key=lambda one: float((one**2).sum()))
            np.testing.assert_allclose(direction, nearest, atol=1e-6)


def test_one_cluster_is_the_class_mean_and_many_are_the_nearest_neighbour():
    images, bank = bank_of_digits()
    classes = torch.arange(3).expand(30, 3)
    torch.testing.assert_close(NearestClusterMean(bank, clusters=1)(images, classes), ClassMean(bank)(images, classes))
    torch.testing.assert_close(
        NearestClusterMean(bank, clusters=8)(images, classes), NearestNeighbour(bank)(images, classes)
    )


def test_a_class_without_examples_is_named_unless_it_is_left_out():
    images, labels = torch.rand(4, 1, 2, 2), torch.tensor([0, 0, 1, 1])
    bank = draw_bank(images, labels, num_classes=2, per_class=2)
    bank.counts[1] = 0
    with pytest.raises(UserError, match='holds no example of class 1'):
        NearestClusterMean(bank)
    target = NearestClusterMean(bank, clusters=1, without=[1])
    expected = images[:2].mean(0) - images
    torch.testing.assert_close(target(images, torch.zeros(4, 1, dtype=torch.int64))[:, 0], expected)
