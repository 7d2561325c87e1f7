"""Certificates with a hierarchy of classes: its groups, its guarantee, and the flat certificate inside."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom

from mmadv.errors import UserError
from mmadv.robustness import Certifier, Hierarchy, holm
from mmadv.robustness.certification import BOUNDS, finest_levels, level_counts

CLASSES = ('sky', 'tree', 'road', 'car', 'bus')
LEVELS = ({'vehicle': ['car', 'bus']}, {'still': ['sky', 'tree', 'road'], 'vehicle': ['bus', 'car']})
TAU, DRAWS = 0.75, 60


def test_groups_and_what_they_say():
    hierarchy = Hierarchy(CLASSES, LEVELS)
    assert hierarchy.groups.tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 3], [0, 0, 0, 3, 3]]
    gains = hierarchy.gains
    assert gains[0].tolist() == [1] * 5
    assert gains[2] == pytest.approx([math.log(5 / 3) / math.log(5)] * 3 + [math.log(5 / 2) / math.log(5)] * 2)
    classes, labels = np.array([[0, 3, 3, 2, 2]]), np.array([[0, 4, 0, 255, 2]])
    rows = level_counts(classes, np.array([[0, 1, 1, 0, -1]]), labels, hierarchy)
    assert rows == [[1, 1, 1.0], [2, 1, pytest.approx(gains[1, 4])], [0, 0, 0.0]]


@pytest.mark.parametrize(
    ('levels', 'message'),
    [
        ([], 'the hierarchy has no level'),
        ([{'a': ['car', 'bsu']}], "level 1 of the hierarchy: the dataset has no class 'bsu' of the group 'a'; did you"),
        ([{'a': ['car', 'bus'], 'b': ['sky', 'bus']}], "the class 'bus' is in the groups 'a' and 'b'"),
        ([{'a': ['car', 'car']}], "the class 'car' is in the groups 'a' and 'a'"),
        ([{'a': []}], "the group 'a' has no class"),
        ([{'a': ['car']}], 'level 1 of the hierarchy joins no groups of the level before'),
        ([*LEVELS, {'a': ['sky', 'car']}], 'level 3 of the hierarchy splits sky, tree, road, which the level before'),
        ([{'all': list(CLASSES)}], 'level 1 of the hierarchy has all classes in one group, which says nothing'),
    ],
)
def test_what_is_no_hierarchy(levels, message):
    with pytest.raises(UserError, match=message):
        Hierarchy(CLASSES, levels)


def p_values(hits):
    return BOUNDS['clopper-pearson'].p_value(np.asarray(hits) / DRAWS, np.zeros(np.shape(hits)), DRAWS, TAU)


@pytest.mark.parametrize('correction', ['bonferroni', 'holm'])
def test_one_pixel_has_the_finest_level_whose_binomial_tail_is_below_alpha(correction):
    alpha = 0.01
    enough = next(hits for hits in range(DRAWS + 1) if binom.sf(hits - 1, DRAWS, TAU) < alpha)
    for hits, expected in (
        ((enough, enough, DRAWS), 0),
        ((enough - 1, enough, DRAWS), 1),
        ((0, enough - 1, enough), 2),
        ((0, 0, enough - 1), -1),
    ):
        assert finest_levels(p_values(hits)[:, None], alpha, correction).tolist() == [expected]


def test_errors_over_pixels_and_levels_are_as_seldom_as_alpha_says():
    """Pixels whose shares lie exactly at tau at level 0, 1 or 2, beside pixels that are certified for sure."""
    alpha, trials, rng = 0.1, 3000, np.random.default_rng(0)
    # A pixel's shares at the levels; any rejection of a share of at most tau is an error.
    shares = np.array([[TAU, 0.9, 0.99]] * 8 + [[0.4, TAU, 0.97]] * 8 + [[0.3, 0.5, TAU]] * 8 + [[1, 1, 1]] * 8)
    parts = np.diff(np.concatenate([np.zeros((32, 1)), shares, np.ones((32, 1))], axis=1), axis=1)
    hits = rng.multinomial(DRAWS, parts, size=(trials, 32))[..., :3].cumsum(-1)  # (trials, pixels, levels)
    wrong_levels = shares <= TAU

    def family_errors(levels):
        certified = levels >= 0
        return int((certified & np.take_along_axis(wrong_levels, levels.clip(0)[..., None], 2)[..., 0]).any(1).sum())

    values = p_values(hits)
    wrong_levels = np.broadcast_to(wrong_levels, hits.shape)
    for correction in ('bonferroni', 'holm'):
        levels = np.stack([finest_levels(one.T, alpha, correction) for one in values])
        assert (levels[:, 24:] == 0).all()
        # A rate of alpha gives more errors than this with a probability of 1 in 1000.
        assert family_errors(levels) <= binom.ppf(0.999, trials, alpha)
    # The bound is not idle: without a correction for the pixels it does not hold.
    free = np.stack([finest_levels(one.T, alpha * 4, 'bonferroni') for one in values])
    assert family_errors(free) > binom.ppf(0.999, trials, alpha)


def test_level_0_is_holms_correction_and_the_rest_shares_what_it_leaves():
    values = np.random.default_rng(1).random((3, 50)) ** 8
    values = np.sort(values, axis=0)[::-1]
    levels = finest_levels(values, 0.05, 'holm')
    assert np.array_equal(levels == 0, holm(values[0], 0.05)) and (levels == 0).any()
    left = 50 - (levels == 0).sum()
    assert np.array_equal((levels > 0), (values[1:] < 0.05 / left).any(0) & (levels != 0)) and (levels > 0).any()


@pytest.mark.parametrize('kind', ['hard', 'soft'])
@pytest.mark.parametrize('correction', ['bonferroni', 'holm'])
def test_the_flat_certificate_is_inside_bit_for_bit(kind, correction):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3, padding=1)).eval().requires_grad_(False)
    with torch.no_grad():
        model[0].weight *= 4
    image = torch.rand(3, 12, 14)
    settings = dict(sigma=0.1, n0=5, n=120, alpha=0.05, taus=(0.6, 0.8), kind=kind, correction=correction, batch=32)
    flat = Certifier(**settings)(model, image, seed=3)
    both = Certifier(**settings, hierarchy=Hierarchy(CLASSES, LEVELS))(model, image, seed=3)
    assert np.array_equal(flat.classes, both.classes) and np.array_equal(flat.certified, both.certified)
    assert flat.levels is None and np.array_equal(both.levels == 0, flat.certified)
    assert (both.levels > 0).any() and (both.levels == -1).any()
    again = Certifier(**settings | {'batch': 7}, hierarchy=Hierarchy(CLASSES, LEVELS))(model, image, seed=3)
    assert np.array_equal(again.levels, both.levels)


def test_refused():
    hierarchy = Hierarchy(CLASSES, LEVELS)
    for settings in ({'sides': 'two'}, {'kind': 'soft', 'bound': 'bernstein'}):
        with pytest.raises(UserError, match='a hierarchy needs one side and the bound'):
            Certifier(sigma=0.1, hierarchy=hierarchy, **settings)
    with pytest.raises(UserError, match='the model has 2 classes, its hierarchy 5'):
        Certifier(sigma=0.1, hierarchy=hierarchy)(lambda x: x[:, :2], torch.rand(3, 4, 4))
