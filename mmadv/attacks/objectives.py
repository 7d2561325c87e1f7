"""The objectives that attacks maximise: per-pixel functions of logits and labels.

An objective does not reduce over pixels. The attack takes the mean over the valid pixels of each image, once.
Ignored pixels contribute exactly zero, to the value and to the gradient. Every objective is finite for all finite
logits.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mmadv.attacks.checks import Labels, Logits
from mmadv.attacks.class_weights import DATASET, PUBLISHED, checked_class_weights
from mmadv.attacks.pixel_scores import PixelScores, by_rows, check_labels
from mmadv.errors import UserError
from mmadv.fields import IgnoreIndex, Share, checked
from mmadv.registry import OBJECTIVES

# For arguments from here up, the square of the sigmoid is a normal float32 number.
LEAST_SIGMOID_ARGUMENT = -40.0


@dataclass(frozen=True, kw_only=True)
class Objective(ABC):
    """A per-pixel function to maximise.

    Args:
        targeted: False, the default: the attack moves predictions away from the labels. True: the labels are the
            target classes, and the attack moves predictions towards them.

    Attributes:
        uses_clean_logits: whether the objective compares with the logits of the clean images.
    """

    targeted: bool = False
    uses_clean_logits: ClassVar[bool] = False

    @checked
    def __call__(
        self,
        logits: Logits,
        labels: Labels,
        *,
        progress: Share = 0.0,
        ignore_index: IgnoreIndex = 255,
        clean_logits: Logits | None = None,
    ) -> Tensor:
        """Returns the (N, H, W) objective, zero at ignored pixels, in the dtype of the logits (at least float32).

        Args:
            logits: (N, K, H, W) float, before softmax.
            labels: (N, H, W) int64, in [0, K) or ``ignore_index``.
            progress: share in [0, 1] of the attack's iterations that are done.
            ignore_index: label of pixels that contribute exactly 0.
            clean_logits: (N, K, H, W) logits of the clean images, if the objective compares with them.

        Raises:
            UserError: sizes differ, a label is outside its range, or the clean logits are missing.
        """
        if self.uses_clean_logits and clean_logits is None:
            raise UserError(f'{type(self).__name__} needs clean_logits of shape {tuple(logits.shape)}; found None')
        check_labels(labels, logits.shape[1], ignore_index)
        scores = PixelScores(logits, labels, ignore_index=ignore_index, clean_logits=clean_logits)
        return self.value(scores, progress)

    def value(self, scores: PixelScores, progress: float) -> Tensor:
        """Returns the (N, H, W) objective, from scores that are prepared already."""
        return self._signed(self._loss(scores, progress), scores)

    def tracked(self, scores: PixelScores, progress: float) -> Tensor:
        """Returns the (N, H, W) loss that step schedules follow: the objective, or a smooth substitute for it.

        A mask or a weight that changes between iterations can make an objective fall although the attack gets stronger.
        Therefore masked and weighted objectives return their unmasked loss here (appendix B.1 of SEA).
        """
        return self._signed(self._tracked_loss(scores, progress), scores)

    def logit_gradient(self, scores: PixelScores, progress: float) -> Tensor:
        """Returns the gradient of the sum of ``value`` with respect to the logits, (N, K, H, W).

        This method differentiates automatically. A subclass may have a closed form, which overwrites the logits, so
        that the scores no longer hold them.
        """
        twin = scores.differentiable()
        with torch.enable_grad():
            total = self.value(twin, progress).sum()
        scores.scale = twin.scale
        return torch.autograd.grad(total, twin.logits)[0]

    def tracked_and_logit_gradient(self, scores: PixelScores, progress: float) -> tuple[Tensor, Tensor]:
        """Returns ``tracked`` and ``logit_gradient``, in the order in which they need the least memory."""
        tracked = self.tracked(scores, progress)
        return tracked, self.logit_gradient(scores, progress)

    def _signed_gradient(self, gradient: Tensor, weight: Tensor, scores: PixelScores) -> Tensor:
        """Returns the gradient of a loss, multiplied in place by the pixels' weights (N, H, W) and the loss's sign."""
        weight = torch.where(scores.valid, -weight if self.targeted else weight, 0)
        return gradient.mul_(weight.unsqueeze(1))

    @checked
    def part(self, begin: Share, end: Share) -> Objective:
        """Returns the objective of one phase of a run. The phase has its own progress from 0 to 1.

        An objective returns itself if its schedule restarts in each phase, as the schedule of SegPGD does within SEA.

        Args:
            begin: share of the whole run's iterations that are done when the phase begins, in [0, 1].
            end: share of the whole run's iterations that are done when the phase ends, in [0, 1].
        """
        return self

    @abstractmethod
    def _loss(self, scores: PixelScores, progress: float) -> Tensor:
        """Returns the loss, (N, H, W). An untargeted attack maximises it, a targeted attack minimises it."""

    def _tracked_loss(self, scores: PixelScores, progress: float) -> Tensor:
        return self._loss(scores, progress)

    def _signed(self, loss: Tensor, scores: PixelScores) -> Tensor:
        return torch.where(scores.valid, -loss if self.targeted else loss, 0)

    def pending(self, scores: PixelScores) -> Tensor:
        """Returns the pixels that the attack has yet to flip, (N, H, W) bool."""
        return ~scores.agrees if self.targeted else scores.agrees


def _cross_entropy(scores: PixelScores) -> Tensor:
    return -scores.log_label_probability


class CrossEntropyTracked(Objective):
    """Base of objectives whose tracked loss is the cross-entropy."""

    def _tracked_loss(self, scores: PixelScores, progress: float) -> Tensor:
        return _cross_entropy(scores)


class LabelProbabilityObjective(CrossEntropyTracked):
    """Base of losses whose gradient is the cross-entropy's, (softmax - onehot), times a weight of each pixel.

    Attributes:
        uses_predictions: whether the weight depends on the predictions.
    """

    uses_predictions: ClassVar[bool] = False

    def logit_gradient(self, scores: PixelScores, progress: float) -> Tensor:
        """Returns weight · (softmax - onehot), (N, K, H, W); see ``Objective.logit_gradient``."""
        if self.uses_predictions:
            _ = scores.predictions  # computed now, while the scores still hold the logits
        probabilities = scores.take_probabilities()
        return self._weighted(probabilities, self._weight(scores, progress), scores)

    def tracked_and_logit_gradient(self, scores: PixelScores, progress: float) -> tuple[Tensor, Tensor]:
        # The softmax caches the label's log-probability, which the tracked loss needs.
        gradient = self.logit_gradient(scores, progress)
        return self.tracked(scores, progress), gradient

    def _weighted(self, probabilities: Tensor, weight: Tensor, scores: PixelScores) -> Tensor:
        """Returns weight · (softmax - onehot), (N, K, H, W), written over the softmax."""
        minus_one = probabilities.new_full((), -1).expand(scores.indices.shape)
        return self._signed_gradient(probabilities.scatter_add_(1, scores.indices, minus_one), weight, scores)

    @abstractmethod
    def _weight(self, scores: PixelScores, progress: float) -> Tensor:
        """Returns the derivative of the loss with respect to the cross-entropy, (N, H, W), in the logits' dtype.

        When it is called, the softmax has overwritten the logits.
        """


class WeightedCrossEntropy(LabelProbabilityObjective):
    """Base of cross-entropies with a weight of each pixel. The weight is not differentiated."""

    def _loss(self, scores: PixelScores, progress: float) -> Tensor:
        return self._weight(scores, progress) * _cross_entropy(scores)


@OBJECTIVES.register
@dataclass(frozen=True, kw_only=True)
class CrossEntropy(WeightedCrossEntropy):
    """Cross-entropy, -log p_y, in nats."""

    def _weight(self, scores: PixelScores, progress: float) -> Tensor:
        return torch.ones_like(scores.label_logit)


@OBJECTIVES.register
@dataclass(frozen=True, kw_only=True)
class BalancedCrossEntropy(WeightedCrossEntropy):
    """(1 - λ)·CE at pixels still to flip, λ·CE at the others, λ = progress / 2 (SegPGD; SEA, section 2.2.1)."""

    uses_predictions = True

    def _weight(self, scores: PixelScores, progress: float) -> Tensor:
        share = scores.label_logit.new_full((), progress / 2)
        return torch.where(self.pending(scores), 1 - share, share)


@OBJECTIVES.register
@dataclass(frozen=True, kw_only=True)
class CosineCrossEntropy(WeightedCrossEntropy):
    """CE weighted by the cosine between the squashed logits and the one-hot label (CosPGD).

    The weight is not differentiated. If targeted, the weight is one minus the cosine, as in CosPGD.

    Args:
        squash: 'sigmoid', as in SEA's paper, or 'softmax', as in CosPGD's public code.
    """

    squash: str = 'sigmoid'

    def __post_init__(self) -> None:
        if self.squash not in ('sigmoid', 'softmax'):
            raise UserError(f"CosineCrossEntropy: squash must be 'sigmoid' or 'softmax', found {self.squash!r}")

    def logit_gradient(self, scores: PixelScores, progress: float) -> Tensor:
        weight = self._weight(scores, progress)  # computed first, because it reads the logits
        return self._weighted(scores.take_probabilities(), weight, scores)

    def _weight(self, scores: PixelScores, progress: float) -> Tensor:
        cosine = by_rows(self._cosine, scores.logits.detach(), scores.indices)
        return 1 - cosine if self.targeted else cosine

    def _cosine(self, logits: Tensor, indices: Tensor) -> Tensor:
        if self.squash == 'softmax':
            squashed = F.softmax(logits, dim=1)
        else:
            # If all logits of a pixel are very low, every sigmoid underflows and the cosine is 0 / 0. In that range
            # sigmoid equals exp, so a common shift of the logits does not change the cosine.
            shift = (logits.amax(1, keepdim=True) - LEAST_SIGMOID_ARGUMENT).clamp_max_(0)
            squashed = (logits - shift).sigmoid_()
        norm = squashed.square().sum(1).sqrt()  # 20 times as fast on a CPU as vector_norm over channels
        return squashed.gather(1, indices).squeeze(1) / norm


@OBJECTIVES.register
@dataclass(frozen=True, kw_only=True)
class JensenShannon(LabelProbabilityObjective):
    """Jensen-Shannon divergence of the softmax from the one-hot label, in [0, log 2] (SEA, section 2.2.2).

    The sum over the classes is log 2 + (p log p - (1 + p) log(1 + p)) / 2 with p = p_y. This form takes no
    logarithm of a probability that has underflowed.
    """

    def _loss(self, scores: PixelScores, progress: float) -> Tensor:
        return jensen_shannon(scores.log_label_probability)

    def _weight(self, scores: PixelScores, progress: float) -> Tensor:
        log_p = scores.log_label_probability.detach()
        p = log_p.exp()
        return p * (torch.log1p(p) - log_p) / 2


@OBJECTIVES.register
@dataclass(frozen=True, kw_only=True)
class Tsallis(LabelProbabilityObjective):
    """Tsallis cross-entropy, (1 - p_y^(1-q)) / (1 - q), of an order q that changes linearly over the run.

    At q = 1 it is the cross-entropy. Its gradient is the gradient of the cross-entropy times p_y^(1-q), so pixels that
    are fooled already have almost no weight at low orders. Step schedules follow the cross-entropy, because values of
    different orders are not comparable (Matyasko et al., TsallisPGD, 2026).

    Args:
        orders: q at the start and at the end of the run, at most 1 each.
    """

    orders: tuple[float, float] = (-2.0, 1.0)

    def __post_init__(self) -> None:
        orders = tuple(float(value) for value in self.orders)
        if len(orders) != 2 or not all(-math.inf < value <= 1 for value in orders):
            raise UserError(f'Tsallis: orders must be two numbers of at most 1; found {self.orders}')
        object.__setattr__(self, 'orders', orders)

    def order(self, progress: float) -> float:
        """Returns the order q at ``progress``."""
        first, last = self.orders
        return (1 - progress) * first + progress * last

    @checked
    def part(self, begin: Share, end: Share) -> Tsallis:
        return dataclasses.replace(self, orders=(self.order(begin), self.order(end)))

    def _loss(self, scores: PixelScores, progress: float) -> Tensor:
        exponent = 1 - self.order(progress)
        log_p = scores.log_label_probability
        return -log_p if exponent == 0 else -torch.expm1(exponent * log_p) / exponent

    def _weight(self, scores: PixelScores, progress: float) -> Tensor:
        return ((1 - self.order(progress)) * scores.log_label_probability.detach()).exp()


@OBJECTIVES.register
@dataclass(frozen=True, kw_only=True)
class KullbackLeibler(Objective):
    """KL(p ‖ q) in nats, with the softmax p of the clean image and the softmax q of the perturbed image (TRADES).

    Labels only decide which pixels count. The value and the gradient are zero at the clean image, so attacks need a
    random start.
    """

    uses_clean_logits = True

    def __post_init__(self) -> None:
        if self.targeted:
            raise UserError('KullbackLeibler moves predictions away from the clean ones and has no targeted form')

    def _loss(self, scores: PixelScores, progress: float) -> Tensor:
        assert scores.clean_logits is not None
        return kl_divergence(scores.clean_logits.detach(), scores.logits)

    def logit_gradient(self, scores: PixelScores, progress: float) -> Tensor:
        """Returns q - p, (N, K, H, W); see ``Objective.logit_gradient``."""
        assert scores.clean_logits is not None
        clean = F.softmax(scores.clean_logits.to(scores.logits.dtype), dim=1)
        gradient = scores.take_probabilities().sub_(clean)
        return self._signed_gradient(gradient, gradient.new_ones(scores.labels.shape), scores)


@OBJECTIVES.register
@dataclass(frozen=True, kw_only=True)
class MaskedCrossEntropy(WeightedCrossEntropy):
    """CE at the pixels still to flip, zero elsewhere (Mask-CE of SEA, section 2.2.2).

    Fooled pixels contribute nothing, so the step moves the other pixels. The mask is not differentiated.
    """

    uses_predictions = True

    def _weight(self, scores: PixelScores, progress: float) -> Tensor:
        return self.pending(scores).to(scores.label_logit.dtype)


@OBJECTIVES.register
@dataclass(frozen=True, kw_only=True)
class MaskedBalancedCrossEntropy(WeightedCrossEntropy):
    """Masked CE times a constant weight of the label's class in the data set (third loss of SEA's later version).

    The loss is not divided by the sum of the weights. Its tracked loss is the plain cross-entropy, as for the other
    masked losses.

    Args:
        class_weights: one number for each class; or 'voc_21' or 'ade20k_151', the published constants; or 'dataset',
            which an evaluation replaces by the weights of its data set. An attack that still has 'dataset' raises an
            error when it runs.
    """

    class_weights: str | Sequence[float] = DATASET

    uses_predictions = True

    def __post_init__(self) -> None:
        object.__setattr__(self, 'class_weights', checked_class_weights(self.class_weights, type(self).__name__))

    def _weight(self, scores: PixelScores, progress: float) -> Tensor:
        weights = scores.label_logit.new_tensor(self._constants(scores.num_classes))[scores.indices.squeeze(1)]
        return torch.where(self.pending(scores), weights, 0)

    def _constants(self, num_classes: int) -> Sequence[float]:
        weights = self.class_weights
        if weights == DATASET:
            raise UserError(
                "MaskedBalancedCrossEntropy needs the class weights of the data set: give class_weights='voc_21', "
                "'ade20k_151' or one number for each class"
            )
        constants = PUBLISHED[weights] if isinstance(weights, str) else weights
        if len(constants) != num_classes:
            name = f" ('{weights}')" if isinstance(weights, str) else ''
            raise UserError(
                f'MaskedBalancedCrossEntropy has {len(constants)} class weights{name}, but the model has {num_classes} '
                'classes; give one number for each class'
            )
        return constants


@OBJECTIVES.register
@dataclass(frozen=True, kw_only=True)
class MaskedImageBalancedCrossEntropy(WeightedCrossEntropy):
    """Masked CE with inverse-frequency class weights of each image, which need no statistics of the data set.

    The weight of class c in an image is (valid pixels) / (present classes · pixels of c). So every class in the image
    has the same total weight, and the mean weight over the image's valid pixels is 1.
    """

    uses_predictions = True

    def _weight(self, scores: PixelScores, progress: float) -> Tensor:
        weights = inverse_frequency_weights(scores.indices.squeeze(1), scores.valid, scores.num_classes)
        return torch.where(self.pending(scores), weights, 0).to(scores.label_logit.dtype)


@OBJECTIVES.register
@dataclass(frozen=True, kw_only=True)
class MaskedSpherical(Objective):
    """-u_y / |u|_2 at the pixels still to flip, zero elsewhere (Mask-Sph. of SEA, section 2.2.2)."""

    def _loss(self, scores: PixelScores, progress: float) -> Tensor:
        return torch.where(self.pending(scores), spherical_loss(scores), 0)

    def _tracked_loss(self, scores: PixelScores, progress: float) -> Tensor:
        return spherical_loss(scores)

    def logit_gradient(self, scores: PixelScores, progress: float) -> Tensor:
        """Returns (u_y·u / |u|² - onehot) / |u| at the pixels still to flip; see ``Objective.logit_gradient``."""
        weight = self.pending(scores)
        norm, largest = scores.norm
        gradient = scores.take_logits().div_(largest)
        label = gradient.gather(1, scores.indices) / norm
        gradient.mul_(label / norm)
        gradient.scatter_add_(1, scores.indices, gradient.new_full((), -1).expand(scores.indices.shape))
        weight = weight / (norm * largest).squeeze(1)
        return self._signed_gradient(gradient, weight, scores)


@OBJECTIVES.register
@dataclass(frozen=True, kw_only=True)
class LogitMargin(Objective):
    """max_{i≠y} u_i - u_y, the negative gain of Fast Newton (equation 14). It is positive at wrong pixels."""

    def _loss(self, scores: PixelScores, progress: float) -> Tensor:
        return scores.rival_logit - scores.label_logit


def jensen_shannon(log_p: Tensor) -> Tensor:
    """Returns the Jensen-Shannon divergence from the one-hot label, computed from the label's log-probability."""
    p = log_p.exp()
    return math.log(2) + (p * log_p - (1 + p) * torch.log1p(p)) / 2


def kl_divergence(clean_logits: Tensor, logits: Tensor) -> Tensor:
    """Returns KL(softmax(clean_logits) ‖ softmax(logits)) over the classes, (N, H, W) in nats, from (N, K, H, W).

    Half-precision logits are computed in float32. The result is differentiable with respect to both arguments.
    """
    if logits.dtype in (torch.float16, torch.bfloat16):
        clean_logits, logits = clean_logits.float(), logits.float()
    clean = F.log_softmax(clean_logits.to(logits.dtype), dim=1)
    return (clean.exp() * (clean - F.log_softmax(logits, dim=1))).sum(1)


def spherical_loss(scores: PixelScores) -> Tensor:
    """Returns -u_y / |u|_2, (N, H, W), and 0 at pixels whose logits are all 0."""
    norm, largest = scores.norm
    return -(scores.label_logit.unsqueeze(1) / largest / norm).squeeze(1)


def inverse_frequency_weights(labels: Tensor, valid: Tensor, num_classes: int) -> Tensor:
    """Returns per pixel (valid pixels) / (present classes · pixels of its class), float64, and 0 at invalid pixels.

    Args:
        labels: (N, H, W) int64, in [0, num_classes) at valid pixels.
        valid: (N, H, W) bool.
        num_classes: K.
    """
    counts = torch.zeros(len(labels), num_classes, dtype=torch.float64, device=labels.device)
    counts.scatter_add_(1, labels.flatten(1), valid.flatten(1).double())
    weights = valid.flatten(1).sum(1, keepdim=True) / ((counts > 0).sum(1, keepdim=True) * counts).clamp_min(1)
    return weights.gather(1, labels.flatten(1)).view(labels.shape) * valid
