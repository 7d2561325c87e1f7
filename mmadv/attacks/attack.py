"""The attack protocol: what goes in, what comes out, and what every attack leaves as it was.

An attack is a frozen value object of hyperparameters. ``Attack.__call__`` checks the input, freezes the
model, runs the attack's own loop (``run``) on a ``Problem``, and checks the result against the budget.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mmadv.attacks.objectives import Objective, PixelScores, check_labels
from mmadv.attacks.randomness import content_seeds, derive_seed
from mmadv.attacks.threat import Threat
from mmadv.errors import UserError
from mmadv.registry import ATTACKS, OBJECTIVES, THREATS, Registry, build

Model = Callable[[Tensor], Any]


class NonFiniteLogits(UserError):
    """The model returned NaN or infinite logits.

    Args:
        index: position in the batch of the first such image.
        iteration: forward passes that the attack had made on it before.
    """

    def __init__(self, index: int, iteration: int) -> None:
        super().__init__(
            f'the model returned NaN or infinite logits for image {index} of the batch at iteration {iteration} of the '
            'attack; check the weights, the normalisation and the precision'
        )
        self.index = index
        self.iteration = iteration


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
        loss: (n,) mean tracked loss over the valid pixels, or None where no objective was given.
        gradient: (n, C, h, w) of the mean objective, or None where it was not asked for.
    """

    correct: Tensor
    predictions: Tensor
    loss: Tensor | None = None
    gradient: Tensor | None = None


@dataclass
class Found:
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


class Problem:
    """A model on a fixed set of images, with the passes counted.

    Args:
        model: images (n, C, h, w) -> logits (n, K, H, W), or a mapping that holds them under 'out', as
            torchvision's segmentation models return.
        images: (N, C, h, w) clean images, every one with at least one valid pixel.
        labels: (N, H, W) int64.
        seeds: one per image.
        ignore_index: label of the pixels that do not count.
    """

    def __init__(
        self, model: Model, images: Tensor, labels: Tensor, seeds: Sequence[int], ignore_index: int = 255
    ) -> None:
        self.model = model
        self.images = images
        self.labels = labels
        self.seeds = list(seeds)
        self.ignore_index = ignore_index
        self.valid_pixels = (labels != ignore_index).flatten(1).sum(1)
        self.rows = torch.arange(len(images))
        self.forward_passes = torch.zeros(len(images), dtype=torch.int64)
        self.backward_passes = torch.zeros(len(images), dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.images)

    def restrict(self, keep: Tensor) -> Problem:
        """Returns the problem of the images where ``keep`` (N,) is True; passes count towards this one too."""
        if bool(keep.all()):
            return self
        part = Problem.__new__(Problem)
        part.__dict__.update(self.__dict__)
        part.images, part.labels, part.valid_pixels = self.images[keep], self.labels[keep], self.valid_pixels[keep]
        part.rows = self.rows[keep.cpu()]
        part.seeds = [seed for seed, kept in zip(self.seeds, keep.tolist(), strict=True) if kept]
        return part

    def reseed(self, *keys: object) -> Problem:
        """Returns the same problem with seeds derived from its own and ``keys``, and with counters at zero."""
        seeds = [derive_seed(seed, *keys) for seed in self.seeds]
        return Problem(self.model, self.images, self.labels, seeds, self.ignore_index)

    def count_passes_of(self, part: Problem, keep: Tensor | None = None) -> None:
        """Adds the passes of a reseeded problem (of the images in ``keep``, if given) to this one's."""
        rows = self.rows if keep is None else self.rows[keep.cpu()]
        self.forward_passes[rows] += part.forward_passes
        self.backward_passes[rows] += part.backward_passes

    def evaluate(
        self, candidates: Tensor, objective: Objective | None = None, progress: float = 0.0, *, gradient: bool = False
    ) -> Evaluation:
        """Returns one pass over candidates for all images of the problem.

        Args:
            candidates: (N, C, h, w).
            objective: gives the loss, and the gradient if asked for.
            progress: share in [0, 1] of the iterations that are done.
            gradient: whether to differentiate.

        Raises:
            NonFiniteLogits: at the first image whose logits are not finite.
            UserError: the model's output is no logits of the labels' size, or does not depend on the images.
        """
        candidates = candidates.detach().requires_grad_(gradient)
        with torch.set_grad_enabled(gradient):
            logits = self._logits(candidates)
            scores = PixelScores(logits, self.labels, ignore_index=self.ignore_index)
            loss = None
            if objective is not None:
                loss = scores_mean(objective.tracked(scores, progress).detach(), self.valid_pixels)
            input_gradient = None
            if gradient:
                assert objective is not None
                if not scores.logits.requires_grad:
                    raise UserError(
                        'the logits do not depend on the images differentiably; the model cannot be attacked'
                    )
                # Differentiating the sum and dividing afterwards keeps half-precision models from underflowing.
                total = objective.value(scores, progress).sum()
                (input_gradient,) = torch.autograd.grad(total, candidates)
                input_gradient = input_gradient / self.valid_pixels.view(-1, 1, 1, 1)
                self.backward_passes[self.rows] += 1
        correct = scores.agrees.flatten(1).sum(1)
        return Evaluation(correct, scores.predictions, loss, input_gradient)

    def _logits(self, candidates: Tensor) -> Tensor:
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
        if not bool(torch.isfinite(logits.detach().sum())):
            finite = torch.isfinite(logits.detach()).flatten(1).all(1).cpu()
            if not bool(finite.all()):
                row = int(self.rows[int((~finite).nonzero()[0])])
                raise NonFiniteLogits(row, int(self.forward_passes[row]))
        if int(self.forward_passes.max()) == 0:
            check_labels(self.labels, logits.shape[1], self.ignore_index)
        self.forward_passes[self.rows] += 1
        return logits


def scores_mean(pixels: Tensor, valid_pixels: Tensor) -> Tensor:
    """Returns the mean over the valid pixels of each image, (N,): the one reduction of an attack.

    Args:
        pixels: (N, H, W), zero at ignored pixels.
        valid_pixels: (N,) their number, positive.
    """
    return pixels.flatten(1).sum(1) / valid_pixels


class Best:
    """The strongest iterate seen of each image: fewest pixels as labelled (most, when targeted); ties: the later.

    Args:
        problem: its images are the N rows.
        targeted: whether the labels are the classes wanted.
    """

    def __init__(self, problem: Problem, *, targeted: bool) -> None:
        self.targeted = targeted
        self.images = problem.images.clone()
        self.predictions = torch.zeros_like(problem.labels)
        self.remaining = torch.full((len(problem),), torch.iinfo(torch.int64).max, device=problem.images.device)
        self.valid_pixels = problem.valid_pixels

    def update(self, rows: Tensor, candidates: Tensor, evaluation: Evaluation) -> Tensor:
        """Takes the candidates of the given rows where they are at least as strong; returns which are not yet solved."""
        remaining = self.remaining_pixels(evaluation.correct, self.valid_pixels[rows], self.targeted)
        better = remaining <= self.remaining[rows]
        target = rows[better]
        self.images[target] = candidates[better]
        self.predictions[target] = evaluation.predictions[better]
        self.remaining[target] = remaining[better]
        return self.remaining[rows] > 0

    @staticmethod
    def remaining_pixels(correct: Tensor, valid_pixels: Tensor, targeted: bool) -> Tensor:
        """Returns how many valid pixels the attack has yet to flip, (n,)."""
        return valid_pixels - correct if targeted else correct

    def found(self) -> Found:
        """Returns the kept iterates."""
        correct = self.remaining_pixels(self.remaining, self.valid_pixels, self.targeted)
        return Found(self.images, correct, self.predictions)


@contextmanager
def frozen(model: Model) -> Iterator[None]:
    """Puts a module into eval mode without parameter gradients, and gives back every flag as it was.

    Flags are set directly, not through ``train()``, which some modules override. A model that is not a
    ``torch.nn.Module`` is left alone: whoever wraps a module in a function puts it into eval mode himself.
    """
    if not isinstance(model, nn.Module):
        yield
        return
    training = [(module, module.training) for module in model.modules()]
    required = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for module, _ in training:
            module.training = False
        for parameter, _ in required:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, flag in training:
            module.training = flag
        for parameter, flag in required:
            parameter.requires_grad_(flag)


class Attack(ABC):
    """Base of all attacks: frozen dataclasses whose fields are the hyperparameters.

    Attributes:
        threat: the budget that results stay in.
    """

    threat: Threat

    @property
    def start_threat(self) -> Threat:
        """The budget of the first iterate."""
        return self.threat

    @property
    @abstractmethod
    def targeted(self) -> bool:
        """Whether labels are the classes wanted, not those to leave."""

    @property
    @abstractmethod
    def is_random(self) -> bool:
        """Whether results depend on the seeds."""

    @abstractmethod
    def run(self, problem: Problem, start: Tensor | None = None) -> Found:
        """Returns what the attack finds; the model is frozen and gradients are enabled already.

        Args:
            problem: the model, images and labels.
            start: (N, C, h, w) first iterate within the budget, instead of the attack's own choice.
        """

    @abstractmethod
    def with_threat(self, threat: Threat) -> Attack:
        """Returns the same attack under another threat model."""

    @abstractmethod
    def with_steps(self, steps: int) -> Attack:
        """Returns the same attack with another number of iterations."""

    def with_radius(self, radius: str | float) -> Attack:
        """Returns the same attack at another radius."""
        return self.with_threat(self.threat.with_radius(radius))

    def describe(self) -> dict[str, Any]:
        """Returns the config that ``mmadv.registry.build`` makes this attack from: type and every parameter."""
        return _describe(self)

    def __call__(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        *,
        seeds: Sequence[int] | None = None,
        ignore_index: int = 255,
        start: Tensor | None = None,
    ) -> AttackResult:
        """Attacks a batch and evaluates the result.

        Args:
            model: images -> logits (N, K, H, W) at label size. A ``torch.nn.Module`` is attacked in eval mode
                with parameters that need no gradient, and left as it was.
            images: (N, C, h, w) float32 or float64 in [0, 1].
            labels: (N, H, W) int64, in [0, K) or ``ignore_index``; the classes wanted, for a targeted attack.
            seeds: one integer per image that decides all noise; by default made from each image's content.
            ignore_index: label of pixels that do not count and give no gradient.
            start: (N, C, h, w) first iterate, projected on the budget, instead of the attack's own choice.

        Returns:
            AttackResult, on the images' device.

        Raises:
            UserError: images, labels, seeds or logits that do not fit.
        """
        found, problem, attackable = self._attack(model, images, labels, seeds, ignore_index, start)
        with frozen(model), torch.inference_mode(False):
            if found.correct is None or found.predictions is None:
                evaluation = problem.evaluate(found.images)
                found.correct, found.predictions = evaluation.correct, evaluation.predictions
            void = Problem(
                model, images[~attackable], labels[~attackable], [0] * int((~attackable).sum()), ignore_index
            )
            void_predictions = void.evaluate(void.images).predictions if len(void) else labels[:0]
        result = _result(problem, found)
        if not len(void):
            return result
        none = AttackResult(
            void.images,
            void_predictions,
            torch.full((len(void),), torch.nan, dtype=torch.float64, device=images.device),
            void.forward_passes,
            void.backward_passes,
        )
        none.members = dict.fromkeys(result.members, none)
        return _merge(result, none, attackable)

    def perturb(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        *,
        seeds: Sequence[int] | None = None,
        ignore_index: int = 255,
        start: Tensor | None = None,
    ) -> Tensor:
        """Returns the adversarial images alone, (N, C, h, w): what training needs, without a last evaluation."""
        found, _, attackable = self._attack(model, images, labels, seeds, ignore_index, start)
        adversarial = images.detach().clone()
        adversarial[attackable] = found.images
        return adversarial

    def _attack(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        seeds: Sequence[int] | None,
        ignore_index: int,
        start: Tensor | None,
    ) -> tuple[Found, Problem, Tensor]:
        check_batch(images, labels, seeds)
        with torch.inference_mode(False), torch.enable_grad():
            images, labels = images.detach().clone(), labels.detach().clone()
            attackable = (labels != ignore_index).flatten(1).any(1)
            clean = images[attackable]
            seeds = content_seeds(images) if seeds is None else list(seeds)
            kept = [seed for seed, attack in zip(seeds, attackable.tolist(), strict=True) if attack]
            problem = Problem(model, clean, labels[attackable], kept, ignore_index)
            if start is not None:
                start = self.start_threat.project(start.detach().clone()[attackable].to(clean), clean)
            with frozen(model):
                found = self.run(problem, start) if len(problem) else Found(clean, problem.valid_pixels, problem.labels)
        inside = self.threat.contains(found.images, clean)
        if not bool(inside.all()):
            raise AssertionError(
                f'{type(self).__name__} left its budget {self.threat} or [0, 1]: this is a defect of it'
            )
        return found, problem, attackable


def check_batch(images: Tensor, labels: Tensor, seeds: Sequence[int] | None) -> None:
    """Raises UserError when images, labels or seeds are not what an attack takes."""
    if images.ndim != 4 or images.dtype not in (torch.float32, torch.float64):
        raise UserError(
            f'images must be float32 or float64 of shape (N, C, H, W); found {images.dtype} of shape {tuple(images.shape)}'
        )
    if labels.ndim != 3 or labels.dtype != torch.int64 or len(labels) != len(images):
        raise UserError(
            f'labels must be int64 of shape (N, H, W) with N = {len(images)}; '
            f'found {labels.dtype} of shape {tuple(labels.shape)}'
        )
    if images.numel():
        lowest, highest = (float(bound) for bound in torch.aminmax(images.detach()))
        if not (lowest >= 0 and highest <= 1):
            raise UserError(f'images must be in [0, 1]; found values from {lowest:g} to {highest:g}')
    if seeds is not None and len(seeds) != len(images):
        raise UserError(f'seeds must hold one integer per image, {len(images)}; found {len(seeds)}')


def _result(problem: Problem, found: Found) -> AttackResult:
    assert found.correct is not None and found.predictions is not None
    accuracy = found.correct.double() / problem.valid_pixels
    return AttackResult(
        found.images, found.predictions, accuracy, problem.forward_passes, problem.backward_passes, found.members
    )


def _merge(result: AttackResult, none: AttackResult, attackable: Tensor) -> AttackResult:
    """Puts the results of attacked images and of images without a valid pixel back into the batch's order."""

    def merge(name: str) -> Tensor:
        ours, theirs = getattr(result, name), getattr(none, name)
        where = attackable.to(theirs.device)
        whole = theirs.new_empty((len(where), *theirs.shape[1:]))
        whole[where], whole[~where] = ours, theirs
        return whole

    names = ('images', 'predictions', 'accuracy', 'forward_passes', 'backward_passes')
    members = {name: _merge(member, none.members[name], attackable) for name, member in result.members.items()}
    return AttackResult(*(merge(name) for name in names), members=members)


def build_parts(owner: Attack, /, **parts: Any) -> None:
    """Builds the parts of an attack that were given as config dicts, in place, at construction."""
    kinds: dict[str, tuple[Registry, type]] = {
        'threat': (THREATS, Threat),
        'objective': (OBJECTIVES, Objective),
        'attack': (ATTACKS, Attack),
    }
    for name, given in parts.items():
        registry, kind = kinds[name]
        part = build(given, registry)
        if not isinstance(part, kind):
            raise UserError(f'{type(owner).__name__}: {name} must be a {registry.kind}; found {part!r}')
        object.__setattr__(owner, name, part)


def check_steps(attack: Attack, steps: Any) -> None:
    """Raises UserError unless ``steps`` is a positive integer."""
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise UserError(f'{type(attack).__name__}: steps must be a positive integer; found {steps!r}')


def _describe(value: Any) -> Any:
    if isinstance(value, (Attack, Threat, Objective)):
        assert dataclasses.is_dataclass(value)
        fields = {item.name: _describe(getattr(value, item.name)) for item in dataclasses.fields(value)}
        return {'type': type(value).__name__, **fields}
    if isinstance(value, Mapping):
        return {key: _describe(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
