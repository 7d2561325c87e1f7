"""The logits and labels of one evaluation, and quantities that objectives derive from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from mmadv.errors import UserError

# How many numbers ``rows_of`` returns at a time: on a CPU its cache holds them, elsewhere they are 64 MB of float32.
CHUNKS = {'cpu': 2**18}
CHUNK = 2**24


def check_labels(labels: Tensor, num_classes: int, ignore_index: int, positions: Tensor | None = None) -> None:
    """Raises UserError if a label is neither in [0, num_classes) nor ``ignore_index``.

    Args:
        labels: (N, H, W) int64.
        num_classes: K.
        ignore_index: label of the pixels that do not count.
        positions: (N,) the images' numbers in the message; by default 0 to N - 1.
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
    """Logits and labels, and quantities that objectives derive from them.

    Each quantity is computed once, at its first use.

    Args:
        logits: (N, K, H, W) float, before softmax; half precision is computed in float32.
        labels: (N, H, W) int64, in [0, K) or ``ignore_index``.
        ignore_index: label of the pixels that do not count.
        scale: (N,) the scale that an objective measured at its first evaluation of each image. If it is None, an
            objective that needs it measures it on these scores and stores it here for the later evaluations.
        clean_logits: (N, K, H, W) logits of the clean images, for objectives that compare with them.
        magnitude: the largest absolute logit; measured if None.
        expendable: whether ``take_logits`` may return the memory of ``logits`` itself, not a copy.
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
        # The difference of two logits must not overflow. The logits of trained networks are far below this bound.
        bound = torch.finfo(logits.dtype).max / 8
        if magnitude is None:
            magnitude = largest_magnitude(*torch.stack(extremes(logits)).tolist())
        if magnitude > bound:
            logits = logits.clamp(-bound, bound)
        self.logits = logits
        self.magnitude = min(magnitude, bound)
        self._expendable = expendable or logits is not input_logits
        self.num_classes = logits.shape[1]
        self.labels = labels
        self.scale = scale
        self.clean_logits = clean_logits
        self.valid = labels != ignore_index
        self.indices = torch.where(self.valid, labels, 0).unsqueeze(1)

    @cached_property
    def _top(self) -> tuple[Tensor, Tensor]:
        """(N, 1, H, W) the highest logit, and its class; of equal logits, the first class."""
        # max returns the first of equal logits, as argmax does, and is much faster than argmax on a CPU.
        return self.logits.detach().max(1, keepdim=True)

    @property
    def highest(self) -> Tensor:
        """(N, 1, H, W) the highest logit."""
        # amax does not find the classes, and takes a tenth of the time of max.
        return self._top[0] if '_top' in self.__dict__ else self.logits.detach().amax(1, keepdim=True)

    @cached_property
    def predictions(self) -> Tensor:
        """(N, H, W) int64, the class with the highest logit."""
        return self._top[1].squeeze(1)

    @cached_property
    def agrees(self) -> Tensor:
        """(N, H, W) bool: valid pixels that are predicted as labelled."""
        return (self.predictions == self.labels) & self.valid

    @cached_property
    def log_label_probability(self) -> Tensor:
        """(N, H, W) log-probability of the label (of class 0 at ignored pixels)."""
        highest = self.highest
        total = by_rows(lambda part, most: (part - most).exp().sum(1), self.logits, highest)
        return self.label_logit - highest.squeeze(1) - total.log()

    @cached_property
    def label_logit(self) -> Tensor:
        """(N, H, W) logit of the label (of class 0 at ignored pixels)."""
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
        """(N, 1, H, W) norm of each pixel's logits in units of their largest magnitude, and that magnitude.

        The direction of the logits does not depend on their scale, and in these units their squares are representable.
        At pixels whose logits are all 0, both numbers are 1.
        """
        largest = torch.where(self.largest > torch.finfo(self.largest.dtype).tiny, self.largest, 1)
        squares = by_rows(lambda part, unit: (part / unit).square().sum(1, keepdim=True), self.logits, largest)
        # The sum is at least 1 unless every logit is 0.
        return squares.clamp_min(1).sqrt(), largest

    def take_logits(self) -> Tensor:
        """Returns the logits for the caller to overwrite.

        Quantities that were computed before stay available. No others can be computed afterwards.
        """
        logits = self.logits.detach()
        del self.logits
        return logits if self._expendable else logits.clone(memory_format=torch.preserve_format)

    def take_probabilities(self) -> Tensor:
        """Returns the (N, K, H, W) softmax of the logits for the caller to overwrite, as ``take_logits`` does."""
        label_logit, highest = self.label_logit, self.highest
        probabilities = self.take_logits().sub_(highest).exp_()
        total = probabilities.sum(1, keepdim=True)
        self.__dict__.setdefault('log_label_probability', label_logit - highest.squeeze(1) - total.log().squeeze(1))
        return probabilities.div_(total)

    def differentiable(self) -> PixelScores:
        """Returns the same scores with logits that require a gradient, and shares all quantities without a gradient."""
        twin = PixelScores.__new__(PixelScores)
        fixed = ('num_classes', 'magnitude', 'labels', 'scale', 'clean_logits', 'valid', 'indices')
        shared = (*fixed, '_top', 'predictions', 'agrees')
        twin.__dict__.update({name: value for name, value in self.__dict__.items() if name in shared})
        twin.logits = self.logits.detach().requires_grad_()
        return twin


def by_rows(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Returns the value of a pixelwise function of (N, K, H, W) tensors, computed for some rows at a time.

    The intermediate results of the function then need little memory, for any number of classes.

    Args:
        function: takes as many tensors as given, and returns (N, H, W) or (N, 1, H, W).
        tensors: the arguments of the function, all of one height; the first has the most numbers.
    """
    parts = rows_of(*tensors)
    if len(parts) == 1:
        return function(*tensors)
    return torch.cat([function(*part) for part in parts], dim=-2)


def rows_of(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Returns views of (N, K, H, W) tensors, some rows of each: as many as the cache holds.

    Args:
        tensors: all of one height; the first has the most numbers.
    """
    height = tensors[0].shape[2]
    chunk = CHUNKS.get(tensors[0].device.type, CHUNK)
    rows = max(1, chunk * height // max(1, tensors[0].numel()))
    return list(zip(*(tensor.split(rows, dim=2) for tensor in tensors), strict=True))


def extremes(logits: Tensor) -> list[Tensor]:
    """Returns the lowest and the highest value, as scalars on the device."""
    logits = logits.detach()
    # aminmax would copy logits in the channels-last memory format.
    return [logits.amin(), logits.amax()]


def largest_magnitude(lowest: float, highest: float) -> float:
    """Returns the largest absolute value of numbers in [lowest, highest], or nan if one of the bounds is nan."""
    # max alone would ignore a nan in its second argument.
    return math.nan if math.isnan(lowest) or math.isnan(highest) else max(-lowest, highest)
