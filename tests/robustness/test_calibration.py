"""Calibration: sums of images against naive versions over all pixels, and cases that are known."""

import math

import numpy as np
import pytest
import torch

from mmadv.errors import UserError
from mmadv.robustness import calibration_intervals, calibration_metrics, calibration_sums


def image(seed, classes=4, size=(9, 11), scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(classes, *size, generator=generator, dtype=torch.float64)
    labels = torch.where(
        torch.rand(size, generator=generator) < 0.6, logits.argmax(0), torch.randint(classes, size, generator=generator)
    )
    labels[0, :3] = 255
    return logits, labels


def naive(images, bins):
    """Returns the metrics by loops over all pixels, in their published forms."""
    p = torch.cat([torch.softmax(logits, 0)[:, labels != 255].T for logits, labels in images]).numpy()
    y = torch.cat([labels[labels != 255] for _, labels in images]).numpy()
    confidence, right = p.max(1), p.argmax(1) == y
    n = len(y)

    def error(shares, hits):
        total = squared = 0.0
        for b in range(bins):
            low, high = b / bins, (b + 1) / bins
            chosen = (shares >= low) & ((shares < high) if b < bins - 1 else (shares <= high))
            if chosen.any():
                gap = hits[chosen].mean() - shares[chosen].mean()
                total += chosen.sum() / n * abs(gap)
                if chosen.sum() > 1:
                    mean = hits[chosen].mean()
                    squared += chosen.sum() / n * (gap**2 - mean * (1 - mean) / (chosen.sum() - 1))
        return total, math.sqrt(max(squared, 0))

    order = np.argsort(-confidence, kind='stable')
    risks = np.cumsum(~right[order]) / np.arange(1, n + 1)
    entropy = -(p * np.log(p)).sum(1)
    ece, debiased = error(confidence, right)
    wrong = 1 - right.mean()
    return {
        'accuracy': right.mean(),
        'confidence': confidence.mean(),
        'ece': ece,
        'ece_debiased': debiased,
        'ece_classwise': np.mean([error(p[:, k], y == k)[0] for k in range(p.shape[1])]),
        'brier': ((p - np.eye(p.shape[1])[y]) ** 2).sum(1).mean(),
        'entropy_right': entropy[right].mean(),
        'entropy_wrong': entropy[~right].mean(),
        'aurc': risks.mean(),
        'excess_aurc': risks.mean() - (wrong + (1 - wrong) * math.log(1 - wrong)),
    }


@pytest.mark.parametrize('bins', [15, 4])
def test_sums_of_images_give_the_naive_metrics(bins):
    images = [image(seed, scale=scale) for seed, scale in ((0, 3.0), (1, 0.5), (2, 9.0))]
    first, *others = (calibration_sums(*one, bins=bins) for one in images)
    actual = calibration_metrics(sum(others, first))
    expected = naive(images, bins)
    for name in set(expected) - {'aurc', 'excess_aurc'}:
        assert actual[name] == pytest.approx(expected[name], abs=1e-12), name
    # The order is known up to the width of a rank.
    assert actual['aurc'] == pytest.approx(expected['aurc'], abs=2e-3)
    assert actual['excess_aurc'] == pytest.approx(expected['excess_aurc'], abs=2e-3)


def test_random_labels_of_a_calibrated_model_have_no_debiased_error():
    generator = torch.Generator().manual_seed(0)
    p = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    logits = p.log()[:, None, None].expand(3, 200, 200)
    labels = torch.multinomial(p, 40000, replacement=True, generator=generator).view(200, 200)
    values = calibration_metrics(calibration_sums(logits, labels))
    assert values['confidence'] == pytest.approx(0.7)
    assert values['ece'] < 0.01 and values['ece_classwise'] < 0.01 and values['ece_debiased'] < 0.005
    # The expected Brier score of true probabilities is 1 - sum p^2; the entropy is that of p.
    assert values['brier'] == pytest.approx(1 - 0.54, abs=0.01)
    entropy = -float((p * p.log()).sum())
    assert values['entropy_right'] == pytest.approx(entropy) and values['entropy_wrong'] == pytest.approx(entropy)
    # All pixels have one confidence, so every share of them has the same expected risk.
    assert values['aurc'] == pytest.approx(1 - values['accuracy'])


def test_confident_errors_are_told_from_unsure_ones():
    """Half of the pixels are wrong with probability q, the others right: the closed forms of ECE, Brier and area."""
    labels = torch.tensor([[0, 0, 1, 1]])

    def metrics_of(q_wrong, q_right):
        p = torch.tensor([[[q_right, q_right, q_wrong, q_wrong]]], dtype=torch.float64)
        return calibration_metrics(calibration_sums(torch.cat([p.log(), (1 - p).log()]), labels))

    sure, unsure = metrics_of(0.99, 0.9), metrics_of(0.6, 0.9)
    assert sure['ece'] == pytest.approx(0.5 * 0.99 + 0.5 * 0.1) and unsure['ece'] == pytest.approx(0.35)
    assert sure['brier'] == pytest.approx(0.99**2 + 0.1**2)
    assert unsure['aurc'] == pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4)
    assert unsure['excess_aurc'] == pytest.approx(unsure['aurc'] - (0.5 + 0.5 * math.log(0.5)))
    assert sure['aurc'] == pytest.approx((1 + 1 + 2 / 3 + 1 / 2) / 4)


def test_extreme_logits_and_images_without_a_label():
    logits = torch.zeros(2, 1, 3, dtype=torch.float64)
    logits[0] = torch.tensor([900.0, -900.0, 0.0])
    values = calibration_metrics(calibration_sums(logits, torch.tensor([[0, 1, 255]])))
    assert values['ece'] == values['brier'] == values['aurc'] == 0 and math.isnan(values['entropy_wrong'])
    nothing = calibration_sums(logits, torch.full((1, 3), 255))
    assert all(math.isnan(value) for name, value in calibration_metrics(nothing).items() if name != 'excess_aurc')
    assert nothing.totals.sum() == nothing.classes.sum() == 0


def test_intervals_are_percentiles_of_resampled_metrics():
    sums = [calibration_sums(*image(seed, scale=1 + seed)) for seed in range(6)]
    actual = calibration_intervals(sums, samples=300, seed=5)
    weights = np.random.default_rng(5).multinomial(6, np.full(6, 1 / 6), size=300)
    for name in ('ece', 'brier', 'aurc', 'ece_classwise'):
        drawn = []
        for weight in weights:
            chosen = [one for one, number in zip(sums, weight, strict=True) for _ in range(number)]
            drawn.append(calibration_metrics(sum(chosen[1:], chosen[0]))[name])
        assert actual[name] == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])), abs=1e-12)
    assert set(calibration_intervals(sums[:1]).values()) == {None}
    with pytest.raises(UserError, match='the same numbers of classes and bins'):
        calibration_intervals([sums[0], calibration_sums(*image(0), bins=3)])
