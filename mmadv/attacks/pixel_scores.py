"""Logits and labels of one evaluation, and what objectives need of them, each computed at most once."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from mmadv.errors import UserError

# Numbers that a step over some rows at a time holds: on a CPU what fits into its cache, elsewhere 64 MB of float32.
CHUNKS = {'cpu': 2**18}
CHUNK = 2**24


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
        values = labels[index][wrong[index]].unique().tolist()[:5]
        position = index if positions is None else int(positions[index])
        raise UserError(
            f'image {position} of the batch holds the labels {values}, which are neither classes of the model '
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
        expendable: whether ``take_logits`` may give the memory of ``logits`` away, not a copy.
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
        expendable: bool = False,
    ) -> None:
        input_logits = logits
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        # Differences of two logits must not overflow. No trained network comes near this bound.
        bound = torch.finfo(logits.dtype).max / 8
        if magnitude is None:
            magnitude = largest_magnitude(*torch.stack(extremes(logits)).tolist())
        if magnitude > bound:
            logits = logits.clamp(-bound, bound)
        self.logits = logits
        self._expendable = expendable or logits is not input_logits
        self.num_classes = logits.shape[1]
        self.labels = labels
        self.scale = scale
        self.clean_logits = clean_logits
        self.valid = labels != ignore_index
        self.indices = torch.where(self.valid, labels, 0).unsqueeze(1)

    @cached_property
    def _top(self) -> tuple[Tensor, Tensor]:
        """(N, 1, H, W) the highest logit, and its class; of equal ones the first."""
        # max gives the first of equal ones, as argmax does, in a fraction of its time on a CPU.
        return self.logits.detach().max(1, keepdim=True)

    @property
    def highest(self) -> Tensor:
        """(N, 1, H, W) the highest logit."""
        # Without the classes it takes a tenth of the time.
        return self._top[0] if '_top' in self.__dict__ else self.logits.detach().amax(1, keepdim=True)

    @cached_property
    def predictions(self) -> Tensor:
        """(N, H, W) int64, the class with the highest logit."""
        return self._top[1].squeeze(1)

    @cached_property
    def agrees(self) -> Tensor:
        """(N, H, W) bool: valid, and predicted as labelled."""
        return (self.predictions == self.labels) & self.valid

    @cached_property
    def log_label_probability(self) -> Tensor:
        """(N, H, W) log-probability of the label (of class 0 where ignored)."""
        highest = self.highest
        total = by_rows(lambda part, most: (part - most).exp().sum(1), self.logits, highest)
        return self.label_logit - highest.squeeze(1) - total.log()

    @cached_property
    def label_logit(self) -> Tensor:
        """(N, H, W) logit of the label (of class 0 where ignored)."""
        return self.logits.gather(1, self.indices).squeeze(1)

    @cached_property
    def rival_logit(self) -> Tensor:
        """(N, H, W) highest logit of the other classes."""
        return by_rows(lambda part, index: part.scatter(1, index, -torch.inf).amax(1), self.logits, self.indices)

    @cached_property
    def largest(self) -> Tensor:
        """(N, 1, H, W) the largest magnitude of a pixel's logits."""
        return torch.maximum(self.highest, -self.logits.detach().amin(1, keepdim=True))

    @cached_property
    def norm(self) -> tuple[Tensor, Tensor]:
        """(N, 1, H, W) norm of each pixel's logits in units of the largest of them, and that largest.

        The direction of the logits does not depend on their scale, and this keeps their squares representable. Where
        every logit is 0 both are 1.
        """
        largest = torch.where(self.largest > torch.finfo(self.largest.dtype).tiny, self.largest, 1)
        squares = by_rows(lambda part, unit: (part / unit).square().sum(1, keepdim=True), self.logits, largest)
        # The sum is at least 1 unless every logit is 0.
        return squares.clamp_min(1).sqrt(), largest

    def take_logits(self) -> Tensor:
        """Returns the logits to be overwritten. What has been computed of them stays; nothing more can be."""
        logits = self.logits.detach()
        del self.logits
        return logits if self._expendable else logits.clone(memory_format=torch.preserve_format)

    def take_probabilities(self) -> Tensor:
        """Returns the (N, K, H, W) softmax of the logits, to be overwritten, as ``take_logits`` does."""
        label_logit, highest = self.label_logit, self.highest
        probabilities = self.take_logits().sub_(highest).exp_()
        total = probabilities.sum(1, keepdim=True)
        self.__dict__.setdefault('log_label_probability', label_logit - highest.squeeze(1) - total.log().squeeze(1))
        return probabilities.div_(total)

    def differentiable(self) -> PixelScores:
        """Returns the same scores with logits that require a gradient; what does not depend on it is shared."""
        twin = PixelScores.__new__(PixelScores)
        shared = ('num_classes', 'labels', 'scale', 'clean_logits', 'valid', 'indices', '_top', 'predictions', 'agrees')
        twin.__dict__.update({name: value for name, value in self.__dict__.items() if name in shared})
        twin.logits = self.logits.detach().requires_grad_()
        return twin


def by_rows(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Returns a function of (N, K, H, W) tensors that treats every pixel by itself, some rows at a time.

    What it makes on the way then needs little memory, however many classes there are.

    Args:
        function: of as many tensors; gives (N, H, W) or (N, 1, H, W).
        tensors: of one height.
    """
    height = tensors[0].shape[2]
    chunk = CHUNKS.get(tensors[0].device.type, CHUNK)
    rows = max(1, chunk * height // max(1, tensors[0].numel()))
    if rows >= height:
        return function(*tensors)
    parts = zip(*(tensor.split(rows, dim=2) for tensor in tensors), strict=True)
    return torch.cat([function(*part) for part in parts], dim=-2)


def extremes(logits: Tensor) -> list[Tensor]:
    """Returns the lowest and the highest value, as scalars on the device."""
    logits = logits.detach()
    # aminmax would copy logits whose channels lie last.
    return [logits.amin(), logits.amax()]


def largest_magnitude(lowest: float, highest: float) -> float:
    """Returns the largest absolute value of numbers between two, nan where one is nan."""
    # The comparison that max makes would lose a nan in its second argument.
    return math.nan if math.isnan(lowest) or math.isnan(highest) else max(-lowest, highest)
