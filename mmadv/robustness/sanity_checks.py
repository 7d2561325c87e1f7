"""Signs that an attack says little about a model: masked gradients, too few iterations, a random forward pass.

``measure`` attacks a few images in several ways. ``judge`` turns the numbers of all images into findings. The signs are
those of Athalye et al. (2018) and Carlini et al. (2019), applied to pixel accuracy.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmadv.attacks import FGSM, PGD, Attack, CrossEntropy, Linf, RandomNoise, Square, ama
from mmadv.attacks.attack_context import Model
from mmadv.attacks.checks import Images, Labels
from mmadv.attacks.freezing import frozen
from mmadv.errors import UserError
from mmadv.fields import IgnoreIndex, Positive, checked
from mmadv.shapes import Seeds

# An attack counts as stronger than another if its accuracy is lower by more than this.
MARGIN = 0.01
# Radius (Linf) at which every model should lose its accuracy, the number of passes, and the accuracy that may remain.
LARGE_RADIUS = 0.5
LARGE_PASSES = 50
LEFT_AT_LARGE_RADIUS = 0.05
# The gradient may be exactly zero at up to this share of an image's values.
ZERO_SHARE = 0.5
# Rounding explains a difference of two forward passes up to this, relative to the largest logit.
ROUNDING = 1e-4


@dataclass(frozen=True)
class CheckResult:
    """The result of one sanity check.

    Attributes:
        name: name of the check.
        passed: whether the check passed.
        evidence: the numbers behind the result.
        advice: what to do if the check failed.
    """

    name: str
    passed: bool
    evidence: str
    advice: str

    def to_dict(self) -> dict[str, Any]:
        """Returns the finding as a JSON-able mapping."""
        return asdict(self)


@checked
def measure(
    model: Model,
    images: Images,
    labels: Labels,
    attack: Attack,
    *,
    seeds: Seeds,
    ignore_index: IgnoreIndex = 255,
    queries: Positive = 300,
) -> dict[str, list[float]]:
    """Returns the numbers that ``judge`` takes, each a list with one number per image.

    If the model has no gradient, only ``attack``, noise and Square attack it.

    Args:
        model: images -> logits at label size.
        images: (N, C, h, w) in [0, 1], each with at least one valid pixel.
        labels: (N, H, W) int64.
        attack: the untargeted attack to check.
        seeds: one per image.
        ignore_index: label of the pixels that do not count.
        queries: number of queries of the black-box attack.
    """
    threat = attack.threat

    def accuracy(other: Attack) -> list[float]:
        result = other(model, images, labels, seeds=seeds, ignore_index=ignore_index)
        return result.accuracy.tolist()

    numbers = {
        'difference': _difference(model, images),
        'zero_share': _zero_share(model, images, labels, ignore_index),
        'attack': accuracy(attack),
        'noise': accuracy(RandomNoise(threat=threat)),
    }
    follows_gradient = min(numbers['zero_share']) < 1
    if follows_gradient:
        numbers['fgsm'] = accuracy(FGSM(threat=threat, keep='lowest_accuracy'))
        numbers['pgd'] = accuracy(PGD(threat=threat, steps=20, keep='lowest_accuracy'))
    try:
        longer = None if attack.steps is None else attack.with_steps(2 * attack.steps)
    except UserError:  # the attack has one step by definition
        longer = None
    numbers['longer'] = accuracy(longer) if longer is not None else numbers.get('pgd', numbers['attack'])
    if isinstance(threat, Linf):
        numbers['square'] = accuracy(Square(threat=threat, steps=queries))
        if follows_gradient:
            numbers['large'] = accuracy(ama(max(LARGE_RADIUS, threat.radius), passes=LARGE_PASSES))
    return numbers


def judge(numbers: dict[str, list[float]]) -> list[CheckResult]:
    """Returns a finding for each sign, from the numbers of all images together."""
    mean = {name: float(np.mean(values)) for name, values in numbers.items()}
    difference, zero = max(numbers['difference']), max(numbers['zero_share'])
    findings = [
        CheckResult(
            'the forward pass is deterministic',
            difference <= ROUNDING,
            f'two passes differ by {difference:.2g} of the largest logit',
            'fix the randomness, or attack the mean over several passes (expectation over transformation)',
        ),
        CheckResult(
            'gradients are not zero',
            zero <= ZERO_SHARE,
            f'the gradient of the cross-entropy is exactly zero at up to {100 * zero:.1f} % of an image',
            'look for rounding, arg max or saturated outputs in the model; attack a differentiable copy, or with '
            'the black-box attack Square',
        ),
        _not_stronger(
            'more iterations no longer help',
            mean,
            weaker='longer',
            stronger='attack',
            advice='raise the number of iterations until the accuracy no longer falls',
        ),
        _not_stronger(
            'random noise is weaker than the attack',
            mean,
            weaker='noise',
            stronger='attack',
            advice='the gradient does not guide the attack; see the other findings',
        ),
    ]
    if 'fgsm' in mean:
        advice = 'the loss is not smooth and its gradient misleads after one step; use restarts and the attack Square'
        findings.append(
            _not_stronger('one step is not stronger than twenty', mean, weaker='fgsm', stronger='pgd', advice=advice)
        )
    if 'square' in mean:
        advice = 'the gradient is masked; report the worst case with the attack Square'
        findings.append(
            _not_stronger(
                'the black-box attack is weaker than the attack',
                mean,
                weaker='square',
                stronger='attack',
                advice=advice,
            )
        )
    if 'large' in mean:
        findings.append(
            CheckResult(
                'a large radius leaves no accuracy',
                mean['large'] <= LEFT_AT_LARGE_RADIUS,
                f'AMA at radius {LARGE_RADIUS:g} leaves {100 * mean["large"]:.1f} %',
                'this radius allows nearly every image, so the attack fails for another reason than robustness',
            )
        )
    return findings


def _not_stronger(name: str, mean: dict[str, float], *, weaker: str, stronger: str, advice: str) -> CheckResult:
    return CheckResult(
        name,
        mean[weaker] >= mean[stronger] - MARGIN,
        f'{weaker} leaves {100 * mean[weaker]:.1f} %, {stronger} {100 * mean[stronger]:.1f} %',
        advice,
    )


def _difference(model: Model, images: Tensor) -> list[float]:
    with frozen(model), torch.no_grad():
        first, second = (_logits(model, images) for _ in range(2))
    largest = first.abs().flatten(1).amax(1).clamp_min(torch.finfo(first.dtype).tiny)
    return ((first - second).abs().flatten(1).amax(1) / largest).tolist()


def _zero_share(model: Model, images: Tensor, labels: Tensor, ignore_index: int) -> list[float]:
    with frozen(model), torch.enable_grad():
        candidates = images.detach().clone().requires_grad_()
        loss = CrossEntropy()(_logits(model, candidates), labels, ignore_index=ignore_index).sum()
        if not loss.requires_grad:
            return [1.0] * len(images)
        (gradient,) = torch.autograd.grad(loss, candidates, allow_unused=True)
    if gradient is None:
        return [1.0] * len(images)
    return (gradient == 0).flatten(1).double().mean(1).tolist()


def _logits(model: Model, images: Tensor) -> Tensor:
    output = model(images)
    return output['out'] if isinstance(output, dict) else output
