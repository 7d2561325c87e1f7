"""Bounds, radii and corrections against scalar versions, closed forms and simulated error rates."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from mmadv.robustness import bonferroni, certified_counts, certified_radius, holm, metrics, soft_radii, worst_iou
from mmadv.robustness.certification import BOUNDS, two_sided_radii

SETTINGS = settings(max_examples=40, deadline=None)


def binomial_tail(k, n, p):
    """P(X >= k), term by term."""
    return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))


def bisected(excess):
    """The root of a rising function on [0, 1]."""
    low, high = 0.0, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    return low


def scalar_lower(name, mean, variance, n, alpha):
    """Each bound from its definition, for one pixel."""
    if name == 'clopper-pearson':
        k = round(mean * n)
        return 0.0 if k == 0 else bisected(lambda p: binomial_tail(k, n, p) - alpha)
    if name == 'hoeffding':
        return max(0.0, mean - math.sqrt(-math.log(alpha) / 2 / n))
    spread = math.sqrt(variance * 2 * math.log(2 / alpha) / n)
    return max(0.0, mean - spread - 7 / 3 * math.log(2 / alpha) / (n - 1))


@pytest.mark.parametrize('name', BOUNDS)
@given(st.integers(2, 60), st.integers(0, 2**31), st.floats(1e-6, 0.3), st.floats(0.5, 0.99))
@SETTINGS
def test_bounds_and_p_values_agree_with_the_scalar_definition(name, n, seed, alpha, tau):
    draws = np.random.default_rng(seed).random((n, 3)) ** 0.2
    if name == 'clopper-pearson':
        draws = (draws > 0.5).astype(float)
    draws[:, 2] = 1
    mean, variance = draws.mean(0), draws.var(0, ddof=1)
    bound = BOUNDS[name]
    lower, p_value = bound.lower(mean, variance, n, alpha), bound.p_value(mean, variance, n, tau)
    for i in range(3):
        expected = scalar_lower(name, float(mean[i]), float(variance[i]), n, alpha)
        assert lower[i] == pytest.approx(expected, abs=1e-9)
        if abs(expected - tau) > 1e-6:
            assert (p_value[i] < alpha) == (expected > tau)
    at_p_value = bound.lower(mean, variance, n, float(p_value[2]))  # where all draws are 1, the p-value is below 1
    if p_value[2] < 0.99:
        assert at_p_value[2] == pytest.approx(tau, abs=1e-6)
    needed = bound.samples_needed(tau, alpha)
    for count, enough in ((needed, True), (needed - 1, False)):
        if count >= 2:
            assert (bound.lower(np.ones(1), np.zeros(1), count, alpha)[0] > tau) == enough


def test_no_hit_bounds_nothing():
    bound = BOUNDS['clopper-pearson']
    assert (
        bound.lower(np.zeros(1), np.zeros(1), 10, 0.05) == 0 and bound.p_value(np.zeros(1), np.zeros(1), 10, 0.5) == 1
    )


@pytest.mark.parametrize(('name', 'draw'), [('clopper-pearson', 'hits'), ('hoeffding', 'hits'), ('bernstein', 'beta')])
def test_bounds_hold_as_often_as_they_say(name, draw):
    rng, n, p, alpha = np.random.default_rng(0), 50, 0.8, 0.1
    draws = rng.random((n, 4000)) < p if draw == 'hits' else rng.beta(8, 2, (n, 4000))
    lower = BOUNDS[name].lower(draws.mean(0), draws.var(0, ddof=1), n, alpha)
    wrong = (lower > p).mean()
    assert wrong <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / 4000)
    if name == 'clopper-pearson':
        assert wrong > alpha / 3  # not vacuous


def naive_holm(p_values, alpha):
    left = dict(enumerate(p_values))
    rejected = set()
    while left:
        smallest = min(left, key=lambda i: left[i])
        if left[smallest] >= alpha / len(left):
            break
        rejected.add(smallest)
        del left[smallest]
    return [i in rejected for i in range(len(p_values))]


@given(st.lists(st.floats(0, 0.2), min_size=1, max_size=12), st.floats(0.01, 0.3))
@SETTINGS
def test_holm_is_the_step_down_procedure_and_contains_bonferroni(p_values, alpha):
    values = np.array(p_values)
    actual = holm(values, alpha)
    assert actual.tolist() == naive_holm(p_values, alpha)
    assert not (bonferroni(values, alpha) & ~actual).any()
    np.testing.assert_array_equal(holm(values[None], alpha)[0], actual)


@pytest.mark.parametrize('correction', [bonferroni, holm])
def test_the_family_wise_error_rate_holds_over_all_pixels(correction):
    # 40 pixels exactly at tau, where a rejection is an error, and 24 far above, which Holm's later steps feed on.
    rng, n, tau, alpha, trials = np.random.default_rng(1), 100, 0.75, 0.2, 1500
    shares = rng.binomial(n, np.r_[np.full(40, tau), np.full(24, 0.98)], (trials, 64)) / n
    p_values = BOUNDS['clopper-pearson'].p_value(shares, np.zeros_like(shares), n, tau)
    rejected = np.stack([correction(row, alpha) for row in p_values])
    assert rejected[:, :40].any(1).mean() <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / trials)
    assert rejected[:, :40].any(1).mean() > 0.02 and rejected[:, 40:].mean() > 0.9
    uncorrected = (p_values[:, :40] < alpha).any(1).mean()
    assert uncorrected > 0.9


def test_a_linear_classifier_has_its_distance_as_radius():
    sigma = 0.25
    distance = np.array([0.01, 0.1, 0.5, 1.0])
    np.testing.assert_allclose(certified_radius(norm.cdf(distance / sigma), sigma), distance, rtol=1e-9)
    # Three classes of which two share what is left: half the sum of both distances.
    top, other = norm.cdf(0.6 / sigma), norm.cdf(-0.9 / sigma)
    assert certified_radius(top, sigma, other) == pytest.approx((0.6 + 0.9) / 2)
    assert certified_radius(np.array([0.5, 0.3]), sigma).tolist() == [0, 0]


@pytest.mark.parametrize('bound', ['hoeffding', 'bernstein'])
def test_radii_from_all_classes_agree_with_a_scalar_version(bound):
    rng, n, sigma, alpha = np.random.default_rng(2), 2000, 0.5, 0.01
    draws = rng.dirichlet([8, 1, 1], (n, 6))  # (n, P, K)
    draws[:, 0] = draws[:, 0, ::-1]
    means, variances = draws.mean(0).T, draws.var(0, ddof=1).T
    classes, radii = soft_radii(means, variances, n, alpha=alpha, sigma=sigma, bound=bound)
    assert classes.tolist() == [2, 0, 0, 0, 0, 0]
    for pixel in range(6):
        each = alpha / (2 * 3 * 6)
        low = [scalar_lower(bound, means[k, pixel], variances[k, pixel], n, each) for k in range(3)]
        high = [1 - scalar_lower(bound, 1 - means[k, pixel], variances[k, pixel], n, each) for k in range(3)]
        top = int(classes[pixel])
        rival = min(max(high[k] for k in range(3) if k != top), 1 - low[top])
        expected = sigma / 2 * (norm.ppf(low[top]) - norm.ppf(rival)) if low[top] > rival else 0
        assert radii[pixel] == pytest.approx(expected, abs=1e-9)
    assert radii.min() > 0
    with pytest.raises(ValueError, match="found 'clopper-pearson'"):
        soft_radii(means, variances, n, alpha=alpha, sigma=sigma, bound='clopper-pearson')


@pytest.mark.parametrize('bound', BOUNDS)
def test_two_sided_radii_agree_with_a_scalar_version(bound):
    rng, n, sigma, alpha = np.random.default_rng(3), 900, 0.5, 0.01
    draws = rng.dirichlet([6, 1.5, 1.5], (n, 5))  # (n, P, K)
    if bound == 'clopper-pearson':
        draws = np.eye(3)[draws.argmax(-1)]
    means, variances = draws.mean(0).T, draws.var(0, ddof=1).T
    classes = np.array([0, 0, 0, 0, 1])  # the last was selected wrongly
    radii = two_sided_radii(classes, means, variances, n, alpha=alpha, sigma=sigma, bound=bound)
    for pixel, top in enumerate(classes):
        each = alpha / (3 * 5)
        low = scalar_lower(bound, means[top, pixel], variances[top, pixel], n, each)
        high = max(
            1 - scalar_lower(bound, 1 - means[k, pixel], variances[k, pixel], n, each) for k in {0, 1, 2} - {top}
        )
        rival = min(high, 1 - low)
        expected = sigma / 2 * (norm.ppf(low) - norm.ppf(rival)) if low > rival else 0
        assert radii[pixel] == pytest.approx(expected, abs=1e-9)
        assert high < 1 - low or top == 1  # the rivals' own bound is the tighter one
    assert radii[:4].min() > 0 and radii[4] == 0


@given(st.integers(0, 2**31))
@SETTINGS
def test_abstained_pixels_are_wrong_and_no_attack_is_worse_than_the_worst_iou(seed):
    rng, K = np.random.default_rng(seed), 3
    labels, classes = rng.integers(0, K, (4, 5)), rng.integers(0, K, (4, 5))
    labels[rng.random((4, 5)) < 0.2] = 255
    certified = rng.random((4, 5)) < 0.6
    counts, abstained = certified_counts(classes, certified, labels, K)
    valid = labels != 255
    if not valid.any():
        return
    assert metrics(counts)['aAcc'] == pytest.approx(((classes == labels) & certified)[valid].mean())
    assert abstained[0].tolist() == [int((labels[~certified] == k).sum()) for k in range(K)]
    floor = worst_iou(counts, abstained)
    for _ in range(5):
        attacked = np.where(certified, classes, rng.integers(0, K, (4, 5)))
        for k in range(K):
            either = valid & ((attacked == k) | (labels == k))
            if either.any():
                assert (valid & (attacked == k) & (labels == k)).sum() / either.sum() >= floor[k] - 1e-12
