"""What attacks return, and what they pass on inside."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class AttackResult:
    """What an attack found.

    Attributes:
        images: (N, C, h, w) in [0, 1], within the budget around the given images.
        predictions: (N, H, W) int64, the model's classes for ``images``.
        accuracy: (N,) float64, share of the valid pixels predicted as labelled; NaN for an image without a
            valid pixel, which is returned unchanged.
        forward_passes: (N,) int64, forward passes of the model spent on each image.
        backward_passes: (N,) int64, gradients with respect to each image.
        members: of an ensemble, the result of each member by name; empty otherwise.
    """

    images: Tensor
    predictions: Tensor
    accuracy: Tensor
    forward_passes: Tensor
    backward_passes: Tensor
    members: dict[str, AttackResult] = field(default_factory=dict)


@dataclass
class Evaluation:
    """One pass of the model over some candidates.

    Attributes:
        correct: (n,) int64, valid pixels predicted as labelled.
        predictions: (n, H, W) int64.
        loss: (n,) mean tracked loss over the valid pixels, or None where it was not asked for.
        gradient: (n, C, h, w) of the mean objective, or None where it was not asked for.
        scale: (n,) what the objective was given, or measured now, as the scale of each image's scores; None where it
            needs none.
    """

    correct: Tensor
    predictions: Tensor
    loss: Tensor | None = None
    gradient: Tensor | None = None
    scale: Tensor | None = None


@dataclass
class AttackOutput:
    """The images an attack settled on, with their evaluation where it has one.

    Attributes:
        images: (N, C, h, w).
        correct: (N,) int64, or None when the images were not evaluated.
        predictions: (N, H, W) int64, or None likewise.
        members: results of an ensemble's members by name.
    """

    images: Tensor
    correct: Tensor | None = None
    predictions: Tensor | None = None
    members: dict[str, AttackResult] = field(default_factory=dict)
