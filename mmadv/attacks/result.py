"""The results that attacks return to callers, and those that they pass on internally."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass
class Candidates:
    """Images that may replace the results of an attack.

    Attributes:
        images: (N, C, h, w), within the budget.
        predictions: (N, H, W) int64.
        accuracy: (N,) float64, share of the valid pixels predicted as labelled; NaN for an image that replaces none.
    """

    images: Tensor
    predictions: Tensor
    accuracy: Tensor


@dataclass
class AttackResult:
    """The result of an attack.

    Attributes:
        images: (N, C, h, w) in [0, 1], within the budget around the given images.
        predictions: (N, H, W) int64, the model's classes for ``images``.
        accuracy: (N,) float64, share of the valid pixels predicted as labelled; NaN for an image without a
            valid pixel, which is returned unchanged.
        forward_passes: (N,) int64, number of forward passes of the model on each image.
        backward_passes: (N,) int64, number of gradients with respect to each image.
        members: the results of an ensemble's members by name; empty for other attacks.
        parts: the accuracy (N,) float64 that each part of a cascade reached by itself, by name, NaN for images without
            such a run; empty for other attacks.
    """

    images: Tensor
    predictions: Tensor
    accuracy: Tensor
    forward_passes: Tensor
    backward_passes: Tensor
    members: dict[str, AttackResult] = field(default_factory=dict)
    parts: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Evaluation:
    """One pass of the model over some candidates.

    Attributes:
        correct: (n,) int64, valid pixels predicted as labelled.
        predictions: (n, H, W) int64.
        loss: (n,) mean tracked loss over the valid pixels, or None if it was not requested.
        gradient: (n, C, h, w) gradient of the mean objective, or None if it was not requested.
        scale: (n,) scale of each image's scores, which the objective was given or measured now; None if the objective
            needs no scale.
    """

    correct: Tensor
    predictions: Tensor
    loss: Tensor | None = None
    gradient: Tensor | None = None
    scale: Tensor | None = None


@dataclass
class AttackOutput:
    """The final images of an attack, with their evaluation if the attack has made one.

    Attributes:
        images: (N, C, h, w).
        correct: (N,) int64, valid pixels predicted as labelled, or None if the images were not evaluated.
        predictions: (N, H, W) int64, or None if the images were not evaluated.
        members: the results of an ensemble's members by name.
        parts: the accuracy (N,) float64 of each part of a cascade by name, NaN for images that it did not attack.
    """

    images: Tensor
    correct: Tensor | None = None
    predictions: Tensor | None = None
    members: dict[str, AttackResult] = field(default_factory=dict)
    parts: dict[str, Tensor] = field(default_factory=dict)


def joined(results: Sequence[AttackResult]) -> AttackResult:
    """Returns the results of several batches as one; all are of the same attack."""

    def join(name: str) -> Tensor:
        return torch.cat([getattr(result, name) for result in results])

    first = results[0]
    return AttackResult(
        images=join('images'),
        predictions=join('predictions'),
        accuracy=join('accuracy'),
        forward_passes=join('forward_passes'),
        backward_passes=join('backward_passes'),
        members={name: joined([result.members[name] for result in results]) for name in first.members},
        parts={name: torch.cat([result.parts[name] for result in results]) for name in first.parts},
    )


def with_candidates(result: AttackResult, candidates: Candidates, *, targeted: bool) -> AttackResult:
    """Returns a result with every candidate that is stronger than the image in it, for each member too.

    Args:
        result: the result of an attack.
        candidates: one for each image.
        targeted: whether the labels are the target classes.
    """
    better = candidates.accuracy > result.accuracy if targeted else candidates.accuracy < result.accuracy
    chosen = better.view(-1, 1, 1)
    return replace(
        result,
        images=torch.where(chosen[..., None], candidates.images, result.images),
        predictions=torch.where(chosen, candidates.predictions, result.predictions),
        accuracy=torch.where(better, candidates.accuracy, result.accuracy),
        members={name: with_candidates(one, candidates, targeted=targeted) for name, one in result.members.items()},
    )
