"""A model on a fixed set of images. Every pass of every attack goes through this module, which counts the passes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mmadv.attacks.checks import warn_of_probabilities
from mmadv.attacks.objectives import Objective
from mmadv.attacks.pixel_scores import PixelScores, check_labels, extremes, largest_magnitude
from mmadv.attacks.randomness import derive_seed
from mmadv.attacks.result import AttackOutput, Candidates, Evaluation
from mmadv.attacks.threat import Threat
from mmadv.errors import UserError

Model = Callable[[Tensor], Any]
NOT_DIFFERENTIABLE = (
    'the logits do not depend on the images differentiably; the model cannot be attacked by gradient, only by Square'
)
# Last operations of a model whose backward pass does not read their output. VIEWS are views of such an output.
READ_INPUTS_ALONE = {
    'CatBackward0',
    'ConvolutionBackward0',
    'DivBackward0',
    'FlipBackward0',
    'UpsampleBilinear2DBackward0',
}
VIEWS = {'AliasBackward0', 'SliceBackward0', 'ViewBackward0'}


class NonFinite(UserError):
    """The model computed NaN or infinite numbers.

    Args:
        index: position in the batch of the first image with such numbers.
        iteration: number of earlier forward passes of the attack on this image.

    Attributes:
        description: the event in words, for other messages.
        advice: the user's next step, for the message.
    """

    description: str
    advice: str

    def __init__(self, index: int, iteration: int) -> None:
        super().__init__(
            f'{self.description} for image {index} of the batch at iteration {iteration} of the attack; {self.advice}'
        )
        self.index = index
        self.iteration = iteration


class NonFiniteLogits(NonFinite):
    """The model returned NaN or infinite logits."""

    description = 'the model returns NaN or infinite logits'
    advice = 'check the weights, the normalisation and the precision'


class NonFiniteGradient(NonFinite):
    """The logits are finite, but their gradient with respect to the image is not."""

    description = 'the model has a NaN or infinite gradient'
    advice = (
        'no attack can follow it, and one that is not told looks harmless; look for roots, divisions and logarithms of '
        'zero in the model, and check the precision'
    )


class GradientCheck:
    """Checks that gradients are finite.

    The check is computed at once. The host reads it only when the host waits for the device anyway.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, gradient: Tensor, positions: Tensor, iterations: Tensor) -> None:
        """Adds a gradient to the check.

        Args:
            gradient: (n, C, h, w).
            positions: (n,) positions of the images in the batch.
            iterations: (n,) iterations in which the gradient was computed.
        """
        largest = torch.maximum(gradient.amax((1, 2, 3)), -gradient.amin((1, 2, 3)))
        self._waiting.append((torch.isfinite(largest), positions, iterations))

    def flags(self) -> list[Tensor]:
        """Returns one scalar on the device per unread gradient, True if the gradient is finite."""
        return [finite.all() for finite, _, _ in self._waiting]

    def settle(self, flags: Sequence[float]) -> None:
        """Checks the values of ``flags`` that the host has read from the device.

        Args:
            flags: the values of the scalars that the method ``flags`` returned.

        Raises:
            NonFiniteGradient: at the first image whose gradient is not finite.
        """
        for fine, (finite, positions, iterations) in zip(flags, self._waiting, strict=True):
            if not fine:
                first = int((~finite).nonzero()[0])
                self._waiting.clear()
                raise NonFiniteGradient(int(positions[first]), int(iterations[first]))
        self._waiting.clear()

    def read(self) -> None:
        """Waits for the device and checks the flags, with the same errors as ``settle``."""
        self.settle([bool(flag) for flag in self.flags()])


class Root(torch.autograd.Function):
    """The end of a graph that does not keep its logits. Its backward pass takes the gradient out of ``slope``."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, slope: list[Tensor]) -> Tensor:
        """Returns a scalar zero."""
        ctx.slope = slope
        return logits.new_zeros(())

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, None]:
        """Returns the gradient with respect to the logits and releases its memory."""
        return ctx.slope.pop(), None


class Graph:
    """The graph of a forward pass, for the backward pass. It does not hold the logits, and their gradient only briefly.

    Args:
        candidates: (n, C, h, w), the leaf.
        logits: the logits of the candidates, as the model returned them.
    """

    def __init__(self, candidates: Tensor, logits: Tensor) -> None:
        self.candidates = candidates
        self.dtype = logits.dtype
        self.slope: list[Tensor] = []
        with torch.enable_grad():
            self.root: Tensor = Root.apply(logits, self.slope)

    def start(self, slope: Tensor) -> None:
        """Takes the gradient with respect to the logits, (n, K, H, W). The caller should keep no reference to it."""
        self.slope.append(slope.to(self.dtype))

    def gradient(self) -> Tensor | None:
        """Returns the gradient with respect to the candidates, or None if the logits do not depend on them."""
        (gradient,) = torch.autograd.grad(self.root, self.candidates, allow_unused=True)
        return gradient


@dataclass
class ModelFacts:
    """Facts about a model that all contexts of one attack share.

    Attributes:
        classes: number of classes; None before the first pass.
        clean_predictions: position in the batch -> (H, W) predictions for the clean image, as far as they are known.
    """

    classes: int | None = None
    clean_predictions: dict[int, Tensor] = field(default_factory=dict)


class AttackContext:
    """A model on a fixed set of images. It counts the passes of each image.

    Args:
        model: images (n, C, h, w) -> logits (n, K, H, W), or a mapping that holds the logits under 'out', as
            torchvision's segmentation models return it.
        images: (N, C, h, w) clean images, every one with at least one valid pixel.
        labels: (N, H, W) int64.
        seeds: one per image.
        ignore_index: label of the pixels that do not count.
        positions: (N,) positions of the images in the caller's batch, for messages; by default 0 to N - 1.
    """

    def __init__(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        seeds: Sequence[int],
        ignore_index: int = 255,
        positions: Tensor | None = None,
    ) -> None:
        self.model = model
        self.images = images
        self.labels = labels
        self.seeds = list(seeds)
        self.ignore_index = ignore_index
        self.valid_pixels = (labels != ignore_index).flatten(1).sum(1)
        self.rows = torch.arange(len(images))
        self.positions = self.rows if positions is None else positions.cpu()
        self.forward_passes = torch.zeros(len(images), dtype=torch.int64)
        self.backward_passes = torch.zeros(len(images), dtype=torch.int64)
        self._clean_logits: Tensor | None = None
        self.facts = ModelFacts()
        self._labels_checked = False
        self.gradients = GradientCheck()

    def __len__(self) -> int:
        return len(self.images)

    def restrict(self, keep: Tensor) -> AttackContext:
        """Returns the context of the images for which ``keep`` (N,) is True. Both contexts share the pass counters."""
        if bool(keep.all()):
            return self
        part = AttackContext.__new__(AttackContext)
        part.__dict__.update(self.__dict__)
        part.images, part.labels, part.valid_pixels = self.images[keep], self.labels[keep], self.valid_pixels[keep]
        part.rows, part.positions = self.rows[keep.cpu()], self.positions[keep.cpu()]
        part.seeds = [seed for seed, stays in zip(self.seeds, keep.tolist(), strict=True) if stays]
        part._clean_logits = None if self._clean_logits is None else self._clean_logits[keep]
        return part

    def masked(self, labels: Tensor) -> AttackContext:
        """Returns the same images with other labels (N, H, W), perhaps all void. Both contexts share the counters."""
        part = AttackContext.__new__(AttackContext)
        part.__dict__.update(self.__dict__)
        part.labels = labels
        # A gradient without a valid pixel is zero, and stays so.
        part.valid_pixels = (labels != self.ignore_index).flatten(1).sum(1).clamp_min(1)
        return part

    def reseed(self, *keys: object) -> AttackContext:
        """Returns the same context with seeds derived from its seeds and ``keys``, and with counters at zero."""
        return self._replaced(self.labels, [derive_seed(seed, *keys) for seed in self.seeds])

    def relabelled(self, labels: Tensor) -> AttackContext:
        """Returns the same context with other labels (N, H, W), and with counters at zero."""
        return self._replaced(labels, self.seeds)

    def of_model(self, model: Model) -> AttackContext:
        """Returns the same context with another model, and with counters at zero."""
        same = AttackContext(model, self.images, self.labels, self.seeds, self.ignore_index, self.positions)
        same.gradients = self.gradients
        return same

    def _replaced(self, labels: Tensor, seeds: Sequence[int]) -> AttackContext:
        same = AttackContext(self.model, self.images, labels, seeds, self.ignore_index, self.positions)
        same._clean_logits = self._clean_logits
        same.facts = self.facts
        same.gradients = self.gradients
        return same

    def count_passes_of(self, part: AttackContext, keep: Tensor | None = None) -> None:
        """Adds the passes of ``part``, a context with its own counters, to the passes of this context.

        Args:
            part: a context that ``reseed``, ``relabelled`` or ``of_model`` returned.
            keep: (N,) bool, the images of this context that ``part`` holds; None if it holds all.
        """
        rows = self.rows if keep is None else self.rows[keep.cpu()]
        self.forward_passes[rows] += part.forward_passes
        self.backward_passes[rows] += part.backward_passes

    def evaluate(
        self,
        candidates: Tensor,
        objective: Objective | None = None,
        progress: float = 0.0,
        *,
        gradient: bool = False,
        track: bool = True,
        scale: Tensor | None = None,
    ) -> Evaluation:
        """Returns the evaluation of candidates for all images of the context, from one pass of the model.

        Args:
            candidates: (N, C, h, w).
            objective: the objective of the loss and of the gradient.
            progress: share in [0, 1] of the iterations that are done.
            gradient: whether to compute the gradient.
            track: whether to compute the objective's tracked loss.
            scale: (N,) ``scale`` of the first evaluation, for an objective that keeps its first scale.

        Raises:
            NonFiniteLogits: at the first image whose logits are not finite.
            NonFiniteGradient: the gradient of the previous evaluation was not finite.
            UserError: the model does not return logits of the labels' size, or they do not depend on the images.
        """
        scores, graph = self._forward(candidates, objective, gradient=gradient, scale=scale)
        correct, predictions = scores.agrees.flatten(1).sum(1), scores.predictions
        tracked = input_gradient = None
        if objective is not None and graph is not None:
            if track:
                tracked, slope = objective.tracked_and_logit_gradient(scores, progress)
            else:
                slope = objective.logit_gradient(scores, progress)
            graph.start(slope)
            del slope
        elif objective is not None and track:
            tracked = objective.tracked(scores, progress)
        scale = scores.scale
        del scores  # before the model's backward pass needs memory
        loss = None if tracked is None else scores_mean(tracked, self.valid_pixels)
        del tracked
        if objective is not None and graph is not None:
            input_gradient = self._differentiate(graph)
        return Evaluation(correct, predictions, loss, input_gradient, scale)

    def note_clean(self, predictions: Tensor) -> None:
        """Stores the clean predictions, (N, H, W), for all contexts of the attack."""
        self.facts.clean_predictions.update(zip(self.positions.tolist(), predictions, strict=True))

    def clean_candidates(self) -> Candidates:
        """Returns the clean images as candidates; the accuracy of an image without known predictions is NaN."""
        stored, positions = self.facts.clean_predictions, self.positions.tolist()
        known = torch.tensor([position in stored for position in positions], device=self.labels.device)
        # The labels stand in for predictions that are not known.
        pairs = zip(positions, self.labels, strict=True)
        predictions = torch.stack([stored.get(position, label) for position, label in pairs])
        correct = (predictions == self.labels) & (self.labels != self.ignore_index)
        accuracy = correct.flatten(1).sum(1).double() / self.valid_pixels
        return Candidates(self.images, predictions, torch.where(known, accuracy, torch.nan))

    def furthest_classes(self) -> Tensor:
        """Returns the class that is furthest from being predicted on any valid pixel of each clean image, (N,) int64.

        It is the class k with the lowest max_i (u_ik - max_j u_ij), for valid pixels i with logits u. It costs one
        forward pass.

        Raises:
            NonFiniteLogits: at the first image whose logits are not finite.
        """
        scores, _ = self._forward(self.images, None, gradient=False)
        self.note_clean(scores.predictions)
        highest, void = scores.highest.squeeze(1), ~scores.valid
        # The loop over classes avoids a second tensor of the logits' size.
        leads = [(u - highest).masked_fill(void, -torch.inf).flatten(1).amax(1) for u in scores.logits.unbind(1)]
        return torch.stack(leads, 1).argmin(1)

    def gradient(
        self, candidates: Tensor, objective: Objective, progress: float, scale: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Returns only the gradient of each image's mean objective, (N, C, h, w), and the objective's ``scale``.

        The arguments and errors are those of ``evaluate``.
        """
        scores, graph = self._forward(candidates, objective, gradient=True, scale=scale)
        assert graph is not None
        graph.start(objective.logit_gradient(scores, progress))
        scale = scores.scale
        del scores  # before the model's backward pass needs memory
        return self._differentiate(graph), scale

    def _forward(
        self, candidates: Tensor, objective: Objective | None, *, gradient: bool, scale: Tensor | None = None
    ) -> tuple[PixelScores, Graph | None]:
        candidates = candidates.detach().requires_grad_(gradient)
        clean_logits = self._logits_of_clean_images() if objective is not None and objective.uses_clean_logits else None
        with torch.set_grad_enabled(gradient):
            logits, magnitude = self._logits(candidates)
        if gradient and not logits.requires_grad:
            raise UserError(NOT_DIFFERENTIABLE)
        overwrites = gradient and getattr(self.model, 'gives_up_logits', False) and is_saved_nowhere(logits)
        scores = PixelScores(
            logits.detach(),
            self.labels,
            ignore_index=self.ignore_index,
            scale=scale,
            clean_logits=clean_logits,
            magnitude=magnitude,
            expendable=overwrites,
        )
        return scores, Graph(candidates, logits) if gradient else None

    def check_result(self, images: Tensor, threat: Threat, owner: str) -> None:
        """Checks that an attack stayed in its budget and had finite gradients, with one wait for the device.

        Args:
            images: (N, C, h, w) result of the attack.
            threat: the attack's budget.
            owner: the attack's name.

        Raises:
            NonFiniteGradient: at the first image whose gradient was not finite.
            AssertionError: the attack left its budget, which is a defect of the attack.
        """
        inside = threat.contains(images, self.images).all()
        stays, *finite_gradients = torch.stack([inside, *(flag.to(inside) for flag in self.gradients.flags())]).tolist()
        self.gradients.settle(finite_gradients)
        if not stays:
            raise AssertionError(f'{owner} left its budget {threat} or [0, 1]: this is a defect of it')

    def _differentiate(self, graph: Graph) -> Tensor:
        gradient = graph.gradient()
        if gradient is None:  # the logits may require a gradient for the weights alone
            raise UserError(NOT_DIFFERENTIABLE)
        self.backward_passes[self.rows] += 1
        self.gradients.add(gradient, self.positions, self.forward_passes[self.rows] - 1)
        # The gradient of the sum, divided here, does not underflow in half-precision models.
        return gradient / self.valid_pixels.view(-1, 1, 1, 1)

    def _logits_of_clean_images(self) -> Tensor:
        """Returns the logits of the clean images. The first call computes them and counts one forward pass."""
        if self._clean_logits is None:
            with torch.no_grad():
                self._clean_logits, _ = self._logits(self.images)
        return self._clean_logits

    def _logits(self, candidates: Tensor) -> tuple[Tensor, float]:
        """Returns the logits and their largest magnitude, with one wait for the device."""
        logits = self.model(candidates)
        if isinstance(logits, Mapping) and 'out' in logits:
            logits = logits['out']
        if not isinstance(logits, Tensor):
            raise UserError(f'the model must return a tensor of logits (N, K, H, W); found {type(logits).__name__}')
        expected = (len(candidates), *self.labels.shape[1:])
        if logits.ndim != 4 or (logits.shape[0], *logits.shape[2:]) != expected:
            raise UserError(
                f"the model must return logits (N, K, H, W) of the labels' size (N, H, W) = {expected}; "
                f'found {tuple(logits.shape)}; resize the logits or the labels'
            )
        flags = [flag.to(logits) for flag in self.gradients.flags()]
        lowest, highest, *finite_gradients = torch.stack([*extremes(logits), *flags]).tolist()
        self.gradients.settle(finite_gradients)
        magnitude = largest_magnitude(lowest, highest)
        if not math.isfinite(magnitude):
            finite = torch.isfinite(logits.detach()).flatten(1).all(1).cpu()
            first = int((~finite).nonzero()[0])
            raise NonFiniteLogits(int(self.positions[first]), int(self.forward_passes[self.rows[first]]))
        if not self._labels_checked:
            check_labels(self.labels, logits.shape[1], self.ignore_index, self.positions)
            warn_of_probabilities(logits, lowest=lowest, highest=highest)
            self._labels_checked = True
        self.facts.classes = logits.shape[1]
        self.forward_passes[self.rows] += 1
        return logits, magnitude


def is_saved_nowhere(logits: Tensor) -> bool:
    """Returns whether the logits can be overwritten.

    They can if the backward pass of the operation that computed them does not read them.
    """
    node = logits.grad_fn
    while node is not None and type(node).__name__ in VIEWS:
        node = node.next_functions[0][0]
    return type(node).__name__ in READ_INPUTS_ALONE


def scores_mean(pixels: Tensor, valid_pixels: Tensor) -> Tensor:
    """Returns the mean over the valid pixels of each image, (N,): the one reduction of an attack.

    Args:
        pixels: (N, H, W), zero at ignored pixels.
        valid_pixels: (N,) their number, positive.
    """
    return pixels.flatten(1).sum(1) / valid_pixels


class Best:
    """The strongest iterate so far of each image: the one with the fewest pixels predicted as labelled.

    For a targeted attack it is the one with the most. Of equally strong iterates, the later one is kept.

    Args:
        context: its images are the N rows.
        targeted: whether the labels are the target classes.
    """

    def __init__(self, context: AttackContext, *, targeted: bool) -> None:
        self.targeted = targeted
        self.images = context.images.clone()
        self.predictions = torch.zeros_like(context.labels)
        self.remaining = torch.full((len(context),), torch.iinfo(torch.int64).max, device=context.images.device)
        self.valid_pixels = context.valid_pixels

    def update(self, rows: Tensor, candidates: Tensor, evaluation: Evaluation) -> Tensor:
        """Returns which rows still have a pixel to flip, (n,) bool, and keeps every candidate at least as strong as the
        kept one.
        """
        remaining = self.remaining_pixels(evaluation.correct, self.valid_pixels[rows], self.targeted)
        # All rows are written back, better or not, because a choice of rows by a mask would wait for the device.
        better = remaining <= self.remaining[rows]
        for stored, new in (
            (self.images, candidates),
            (self.predictions, evaluation.predictions),
            (self.remaining, remaining),
        ):
            chosen = better.view(-1, *(1,) * (new.ndim - 1))
            stored.index_copy_(0, rows, torch.where(chosen, new, stored[rows]))
        return self.remaining[rows] > 0

    @staticmethod
    def remaining_pixels(correct: Tensor, valid_pixels: Tensor, targeted: bool) -> Tensor:
        """Returns the number of valid pixels that the attack has yet to flip, (n,)."""
        return valid_pixels - correct if targeted else correct

    def output(self) -> AttackOutput:
        """Returns the kept iterates."""
        correct = self.remaining_pixels(self.remaining, self.valid_pixels, self.targeted)
        return AttackOutput(self.images, correct, self.predictions)
