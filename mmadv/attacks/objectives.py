"""What an attack maximises: per-pixel functions of logits and labels.

No objective reduces; an attack takes the mean over the valid pixels of each image, once. Ignored pixels
contribute exactly zero, to the value and to the gradient. Every objective is finite for logits of any
finite size.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from mmadv.errors import UserError
from mmadv.registry import OBJECTIVES


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
    """

    def __init__(self, logits: Tensor, labels: Tensor, *, ignore_index: int = 255, scale: Tensor | None = None) -> None:
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        # Differences of two logits must not overflow. No trained network comes near this bound.
        bound = torch.finfo(logits.dtype).max / 8
        lowest, highest = torch.aminmax(logits.detach())
        if highest > bound or lowest < -bound:
            logits = logits.clamp(-bound, bound)
        self.logits = logits
        self.labels = labels
        self.scale = scale
        self.valid = labels != ignore_index
        self.indices = torch.where(self.valid, labels, 0).unsqueeze(1)

    @cached_property
    def predictions(self) -> Tensor:
        """(N, H, W) int64, the class with the highest logit."""
        return self.logits.detach().argmax(1)

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


@dataclass(frozen=True, kw_only=True)
class Objective(ABC):
    """A per-pixel function to maximise.

    Args:
        targeted: False, the default: move predictions away from the labels. True: the labels are the
            classes wanted, and predictions are moved towards them.
    """

    targeted: bool = False

    def __call__(self, logits: Tensor, labels: Tensor, *, progress: float = 0.0, ignore_index: int = 255) -> Tensor:
        """Returns the (N, H, W) objective, zero at ignored pixels, in the dtype of the logits (at least float32).

        Args:
            logits: (N, K, H, W) float, before softmax.
            labels: (N, H, W) int64, in [0, K) or ``ignore_index``.
            progress: share in [0, 1] of the attack's iterations that are done.
            ignore_index: label of pixels that contribute exactly 0.

        Raises:
            UserError: sizes differ, or a label is outside its range.
        """
        if logits.ndim != 4 or labels.shape != (logits.shape[0], *logits.shape[2:]):
            raise UserError(
                f'logits of shape {tuple(logits.shape)} need labels of shape (N, H, W); found {tuple(labels.shape)}'
            )
        check_labels(labels, logits.shape[1], ignore_index)
        return self.value(PixelScores(logits, labels, ignore_index=ignore_index), progress)

    def value(self, scores: PixelScores, progress: float) -> Tensor:
        """Returns the (N, H, W) objective of prepared scores."""
        return self._signed(self._loss(scores, progress), scores)

    def tracked(self, scores: PixelScores, progress: float) -> Tensor:
        """Returns the (N, H, W) loss that step schedules follow: the objective, or its smooth stand-in.

        A mask or a weight that changes between iterations makes an objective fall while the attack gains, so
        masked and weighted objectives name their unmasked loss (appendix B.1 of SEA).
        """
        return self._signed(self._tracked_loss(scores, progress), scores)

    @abstractmethod
    def _loss(self, scores: PixelScores, progress: float) -> Tensor:
        """(N, H, W), to maximise when untargeted and to minimise when targeted."""

    def _tracked_loss(self, scores: PixelScores, progress: float) -> Tensor:
        return self._loss(scores, progress)

    def _signed(self, loss: Tensor, scores: PixelScores) -> Tensor:
        return torch.where(scores.valid, -loss if self.targeted else loss, 0)

    def pending(self, scores: PixelScores) -> Tensor:
        """(N, H, W) bool: pixels that the attack has yet to flip."""
        return ~scores.agrees if self.targeted else scores.agrees


def _cross_entropy(scores: PixelScores) -> Tensor:
    return -scores.log_label_probability


class CrossEntropyTracked(Objective):
    """An objective that step schedules follow by its cross-entropy."""

    def _tracked_loss(self, scores: PixelScores, progress: float) -> Tensor:
        return _cross_entropy(scores)


@OBJECTIVES.register
@dataclass(frozen=True, kw_only=True)
class CrossEntropy(Objective):
    """Cross-entropy, -log p_y, in nats."""

    def _loss(self, scores: PixelScores, progress: float) -> Tensor:
        return _cross_entropy(scores)


@OBJECTIVES.register
@dataclass(frozen=True, kw_only=True)
class BalancedCrossEntropy(CrossEntropyTracked):
    """(1 - λ)·CE at pixels still to flip, λ·CE at the others, λ = progress / 2 (SegPGD; SEA, section 2.2.1)."""

    def _loss(self, scores: PixelScores, progress: float) -> Tensor:
        share = progress / 2
        loss = _cross_entropy(scores)
        return torch.where(self.pending(scores), (1 - share) * loss, share * loss)


@OBJECTIVES.register
@dataclass(frozen=True, kw_only=True)
class CosineCrossEntropy(CrossEntropyTracked):
    """CE weighted by the cosine between the squashed logits and the one-hot label (CosPGD).

    The weight is not differentiated. Where targeted it is one minus the cosine, as in CosPGD.

    Args:
        squash: 'sigmoid', as SEA's paper states it, or 'softmax', as CosPGD's public code has it.
    """

    squash: str = 'sigmoid'

    def __post_init__(self) -> None:
        if self.squash not in ('sigmoid', 'softmax'):
            raise UserError(f"CosineCrossEntropy: squash must be 'sigmoid' or 'softmax', found {self.squash!r}")

    def _loss(self, scores: PixelScores, progress: float) -> Tensor:
        logs = scores.log_probabilities if self.squash == 'softmax' else F.logsigmoid(scores.logits)
        logs = logs.detach()
        # In logarithms: every sigmoid may underflow, and their quotient would be 0 / 0.
        cosine = (logs.gather(1, scores.indices).squeeze(1) - torch.logsumexp(2 * logs, dim=1) / 2).exp()
        return (1 - cosine if self.targeted else cosine) * _cross_entropy(scores)


@OBJECTIVES.register
@dataclass(frozen=True, kw_only=True)
class JensenShannon(CrossEntropyTracked):
    """Jensen-Shannon divergence of the softmax from the one-hot label, in [0, log 2] (SEA, section 2.2.2).

    Summed over the classes it is log 2 + (p log p - (1 + p) log(1 + p)) / 2 with p = p_y, a form without
    the logarithm of an underflown probability.
    """

    def _loss(self, scores: PixelScores, progress: float) -> Tensor:
        log_p = scores.log_label_probability
        p = log_p.exp()
        return math.log(2) + (p * log_p - (1 + p) * torch.log1p(p)) / 2


@OBJECTIVES.register
@dataclass(frozen=True, kw_only=True)
class MaskedCrossEntropy(CrossEntropyTracked):
    """CE at the pixels still to flip, zero elsewhere (Mask-CE of SEA, section 2.2.2).

    Fooled pixels stop contributing, so the step is spent on the rest. The mask selects; it is not
    differentiated.
    """

    def _loss(self, scores: PixelScores, progress: float) -> Tensor:
        return torch.where(self.pending(scores), _cross_entropy(scores), 0)


@OBJECTIVES.register
@dataclass(frozen=True, kw_only=True)
class MaskedBalancedCrossEntropy(CrossEntropyTracked):
    """Masked CE with inverse-frequency class weights (the third loss of SEA's later version).

    The weight of class c in an image is (valid pixels) / (present classes · pixels of c), so that each
    class present weighs the same and the mean weight over the image's valid pixels is 1.
    """

    def _loss(self, scores: PixelScores, progress: float) -> Tensor:
        weights = inverse_frequency_weights(scores.indices.squeeze(1), scores.valid, scores.logits.shape[1])
        weighted = weights.to(scores.logits.dtype) * _cross_entropy(scores)
        return torch.where(self.pending(scores), weighted, 0)


@OBJECTIVES.register
@dataclass(frozen=True, kw_only=True)
class MaskedSpherical(Objective):
    """-u_y / |u|_2 at the pixels still to flip, zero elsewhere (Mask-Sph. of SEA, section 2.2.2)."""

    def _loss(self, scores: PixelScores, progress: float) -> Tensor:
        return torch.where(self.pending(scores), spherical_loss(scores), 0)

    def _tracked_loss(self, scores: PixelScores, progress: float) -> Tensor:
        return spherical_loss(scores)


@OBJECTIVES.register
@dataclass(frozen=True, kw_only=True)
class LogitMargin(Objective):
    """max_{i≠y} u_i - u_y, the negative gain of Fast Newton (equation 14): positive where a pixel is wrong."""

    def _loss(self, scores: PixelScores, progress: float) -> Tensor:
        return scores.other_logits.amax(1) - scores.label_logit


def spherical_loss(scores: PixelScores) -> Tensor:
    """Returns -u_y / |u|_2, (N, H, W); 0 where every logit is 0."""
    tiny = torch.finfo(scores.logits.dtype).tiny
    # The loss does not depend on the logits' scale: dividing by the largest keeps squares representable.
    largest = scores.logits.detach().abs().amax(1, keepdim=True)
    scaled = scores.logits / torch.where(largest > tiny, largest, 1)
    # At least 1 unless every logit is 0.
    norm = scaled.square().sum(1).clamp_min(1).sqrt()
    return -scaled.gather(1, scores.indices).squeeze(1) / norm


def inverse_frequency_weights(labels: Tensor, valid: Tensor, num_classes: int) -> Tensor:
    """Returns per pixel (valid pixels) / (present classes · pixels of its class), float64, 0 where not valid.

    Args:
        labels: (N, H, W) int64, in [0, num_classes) wherever valid.
        valid: (N, H, W) bool.
        num_classes: K.
    """
    counts = torch.zeros(len(labels), num_classes, dtype=torch.float64, device=labels.device)
    counts.scatter_add_(1, labels.flatten(1), valid.flatten(1).double())
    weights = valid.flatten(1).sum(1, keepdim=True) / ((counts > 0).sum(1, keepdim=True) * counts).clamp_min(1)
    return weights.gather(1, labels.flatten(1)).view(labels.shape) * valid
