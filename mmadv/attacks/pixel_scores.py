"""Logits and labels of one evaluation, and what objectives need of them, each computed at most once."""

from __future__ import annotations

import math
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from mmadv.errors import UserError


def check_labels(labels: Tensor, num_classes: int, ignore_index: int, positions: Tensor | None = None) -> None:
    """Raises UserError when a label is neither in [0, num_classes) nor ``ignore_index``.

    Args:
        labels: (N, H, W) int64.
        num_classes: K.
        ignore_index: label of the pixels that do not count.
        positions: (N,) what the message calls the images; by default 0 to N - 1.
    """
    wrong = (labels != ignore_index) & ((labels < 0) | (labels >= num_classes))
    if wrong.any():
        index = int(wrong.flatten(1).any(1).nonzero()[0])
        found = labels[index][wrong[index]].unique().tolist()[:5]
        position = index if positions is None else int(positions[index])
        raise UserError(
            f'image {position} of the batch holds the labels {found}, which are neither classes of the model '
            f'(0 to {num_classes - 1}) nor ignore_index ({ignore_index}); check the classes and reduce_zero_label'
        )


class PixelScores:
    """Logits beside labels, and what objectives need of them, each computed once and only when asked for.

    Args:
        logits: (N, K, H, W) float, before softmax; half precision is computed in float32.
        labels: (N, H, W) int64, in [0, K) or ``ignore_index``.
        ignore_index: label of the pixels that do not count.
        scale: (N,) what an objective measured at its first evaluation of each image. An objective that needs one,
            and finds None, measures it on these scores and leaves it here for the evaluations that follow.
        clean_logits: (N, K, H, W) logits of the clean images, for objectives that compare with them.
        magnitude: the largest absolute logit, where it is known; else it is measured.
    """

    def __init__(
        self,
        logits: Tensor,
        labels: Tensor,
        *,
        ignore_index: int = 255,
        scale: Tensor | None = None,
        clean_logits: Tensor | None = None,
        magnitude: float | None = None,
    ) -> None:
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        # Differences of two logits must not overflow. No trained network comes near this bound.
        bound = torch.finfo(logits.dtype).max / 8
        if (largest_magnitude(logits) if magnitude is None else magnitude) > bound:
            logits = logits.clamp(-bound, bound)
        self.logits = logits
        self.labels = labels
        self.scale = scale
        self.clean_logits = clean_logits
        self.valid = labels != ignore_index
        self.indices = torch.where(self.valid, labels, 0).unsqueeze(1)

    @cached_property
    def predictions(self) -> Tensor:
        """(N, H, W) int64, the class with the highest logit."""
        # max gives the first of equal ones, as argmax does, in a fraction of its time on a CPU.
        return self.logits.detach().max(1).indices

    @cached_property
    def agrees(self) -> Tensor:
        """(N, H, W) bool: valid, and predicted as labelled."""
        return (self.predictions == self.labels) & self.valid

    @cached_property
    def log_probabilities(self) -> Tensor:
        """(N, K, H, W) log-softmax of the logits."""
        return F.log_softmax(self.logits, dim=1)

    @cached_property
    def log_label_probability(self) -> Tensor:
        """(N, H, W) log-probability of the label (of class 0 where ignored)."""
        return self.log_probabilities.gather(1, self.indices).squeeze(1)

    @cached_property
    def label_logit(self) -> Tensor:
        """(N, H, W) logit of the label (of class 0 where ignored)."""
        return self.logits.gather(1, self.indices).squeeze(1)

    @cached_property
    def other_logits(self) -> Tensor:
        """(N, K, H, W) the logits, with -inf in place of the label's."""
        return self.logits.scatter(1, self.indices, -torch.inf)

    @cached_property
    def largest(self) -> Tensor:
        """(N, 1, H, W) the largest magnitude of a pixel's logits."""
        logits = self.logits.detach()
        return torch.maximum(logits.amax(1, keepdim=True), -logits.amin(1, keepdim=True))

    @cached_property
    def unit_scaled(self) -> tuple[Tensor, Tensor, Tensor]:
        """Logits divided by the largest of each pixel, (N, K, H, W), their norm, and that largest, (N, 1, H, W).

        The direction of the logits does not depend on their scale, and this keeps their squares representable. Where
        every logit is 0 the other two are 1.
        """
        largest = torch.where(self.largest > torch.finfo(self.largest.dtype).tiny, self.largest, 1)
        scaled = self.logits / largest
        # The sum is at least 1 unless every logit is 0.
        return scaled, scaled.square().sum(1, keepdim=True).clamp_min(1).sqrt(), largest

    def take_probabilities(self) -> Tensor:
        """Returns the (N, K, H, W) softmax of the logits, in the memory of ``log_probabilities``, which is given up."""
        log_probabilities = self.log_probabilities.detach()
        del self.log_probabilities
        return log_probabilities.exp_()

    def differentiable(self) -> PixelScores:
        """Returns the same scores with logits that require a gradient; what does not depend on it is shared."""
        twin = PixelScores.__new__(PixelScores)
        shared = ('labels', 'scale', 'clean_logits', 'valid', 'indices', 'predictions', 'agrees')
        twin.__dict__.update({name: value for name, value in self.__dict__.items() if name in shared})
        twin.logits = self.logits.detach().requires_grad_()
        return twin


def largest_magnitude(logits: Tensor) -> float:
    """Returns the largest absolute value, nan where one is nan: one pass, and one wait for the device."""
    lowest, highest = torch.stack(torch.aminmax(logits.detach())).tolist()
    # The comparison that max makes would lose a nan in its second argument.
    return math.nan if math.isnan(lowest) or math.isnan(highest) else max(-lowest, highest)
