"""The attack protocol: the inputs, the outputs, and the state of the model that every attack restores.

An attack is a frozen value object of hyperparameters. ``Attack.__call__`` checks the input, freezes the
model, runs the attack's own loop (``run``) on an ``AttackContext``, and checks the result against the budget.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from mmadv.attacks.attack_context import AttackContext, Model
from mmadv.attacks.checks import Images, Labels, check_predictions, check_radius
from mmadv.attacks.freezing import frozen
from mmadv.attacks.objectives import Objective
from mmadv.attacks.randomness import content_seeds
from mmadv.attacks.region import Region
from mmadv.attacks.result import AttackOutput, AttackResult, with_candidates
from mmadv.attacks.schedules import Schedule
from mmadv.attacks.threat import Threat
from mmadv.errors import UserError
from mmadv.fields import IgnoreIndex, Positive, WrittenRadius, checked
from mmadv.registry import ATTACKS, OBJECTIVES, SCHEDULES, THREATS, Registry, build
from mmadv.shapes import Seeds


class Attack(ABC):
    """Base of all attacks, which are frozen dataclasses. Their fields are the hyperparameters.

    Attributes:
        threat: the budget that results stay in.
        steps: number of iterations, which ``with_steps`` changes; None for an attack without iterations.
        label: a preset's name for the attack, in which '{steps}' stands for the iterations; empty if there is none.
            The label is not a hyperparameter: attacks that differ only in their labels are equal.
    """

    if TYPE_CHECKING:  # an attack is a dataclass, with fields or properties of these names
        __dataclass_fields__: ClassVar[dict[str, Any]]

        @property
        def threat(self) -> Threat: ...

        @property
        def steps(self) -> int | None: ...

        @property
        def label(self) -> str: ...
    else:
        threat: Threat
        steps: int | None = None
        label: str = ''

    # Whether the attack chooses, for each image, the pixels that it changes and that are in no score.
    runs_alone: ClassVar[bool] = False

    @property
    def title(self) -> str:
        """The attack's name in tables: its label, or the name of its class if the label is empty.

        An attack that a preset made and you changed keeps the label: give it one of your own.
        """
        return self.label.replace('{steps}', str(self.steps)) if self.label else type(self).__name__

    @property
    def start_threat(self) -> Threat:
        """The budget of the first iterate."""
        return self.threat

    @property
    @abstractmethod
    def targeted(self) -> bool:
        """Whether the attack moves predictions towards the labels, not away from them."""

    @property
    @abstractmethod
    def is_random(self) -> bool:
        """Whether results depend on the seeds."""

    @property
    def keeps_strongest(self) -> bool:
        """Whether the result is the strongest image that the attack has seen. The clean image is then a candidate.

        False for attacks that are defined by another image, such as the last iterate. Their results stay as they are.
        """
        return False

    @abstractmethod
    def run(self, context: AttackContext, start: Tensor | None = None) -> AttackOutput:
        """Returns the images that the attack finds. The caller has frozen the model and enabled gradients.

        Args:
            context: the model, images and labels.
            start: (N, C, h, w) first iterate within the budget, instead of the attack's own choice.
        """

    def budget(self, context: AttackContext) -> Threat:
        """Returns the threat model that results for the images of a context are checked against."""
        return self.threat

    @checked
    def with_threat(self, threat: Threat) -> Any:
        """Returns the same attack under another threat model.

        Raises:
            UserError: the attack does not support that threat model.
        """
        return dataclasses.replace(self, threat=threat)

    @checked
    def with_steps(self, steps: Positive) -> Any:
        """Returns the same attack with another number of iterations.

        Raises:
            UserError: the attack does not support that number of iterations.
        """
        return dataclasses.replace(self, steps=steps)

    @checked
    def with_radius(self, radius: WrittenRadius) -> Any:
        """Returns the same attack at another radius."""
        return self.with_threat(self.threat.with_radius(radius))

    @checked
    def inside(self, region: Region) -> Any:
        """Returns the same attack, which changes only the pixels of a region."""
        return self.with_threat(self.threat.inside(region))

    def describe(self) -> dict[str, Any]:
        """Returns the config of this attack for ``mmadv.registry.build``: the type and every parameter."""
        return _describe(self)

    @checked
    def __call__(
        self,
        model: Model,
        images: Images,
        labels: Labels,
        *,
        seeds: Seeds | None = None,
        ignore_index: IgnoreIndex = 255,
        start: Images | None = None,
        clean_predictions: Labels | None = None,
    ) -> AttackResult:
        """Attacks a batch and evaluates the result.

        An attack that keeps the strongest image (``keeps_strongest``) never returns an image that the model predicts
        better than the clean one, if the clean predictions are known. They are known if the caller gives them, or if
        the attack has computed them for its own use, as ``auto`` does. It costs no pass.

        Args:
            model: images -> logits (N, K, H, W) at label size. A ``torch.nn.Module``, or a function or method that
                runs modules. The attack puts the modules into eval mode without parameter gradients, and restores
                them at the end.
            images: (N, C, h, w) float32 or float64 in [0, 1].
            labels: (N, H, W) int64, in [0, K) or ``ignore_index``; for a targeted attack, the target classes.
            seeds: one integer per image that decides all noise; by default derived from each image's content.
            ignore_index: label of pixels that do not count and give no gradient.
            start: (N, C, h, w) in [0, 1], first iterate instead of the attack's own choice; the attack projects it on
                the budget.
            clean_predictions: (N, H, W) int64, the model's classes for ``images``, if the caller knows them.

        Returns:
            AttackResult, on the images' device.

        Raises:
            UserError: images, labels, seeds or logits are invalid, or a gradient is not finite.
        """
        output, context, attackable = self._attack(model, images, labels, seeds, ignore_index, start)
        with frozen(model), torch.inference_mode(False):
            if output.correct is None or output.predictions is None:
                evaluation = context.evaluate(output.images)
                output.correct, output.predictions = evaluation.correct, evaluation.predictions
            void = AttackContext(
                model, images[~attackable], labels[~attackable], [0] * int((~attackable).sum()), ignore_index
            )
            void_predictions = void.evaluate(void.images).predictions if len(void) else labels[:0]
        if clean_predictions is not None:
            check_predictions(clean_predictions, context.facts.classes)
            context.note_clean(clean_predictions[attackable].to(context.labels))
        result = _result(context, output)
        if self.keeps_strongest and len(context):
            result = with_candidates(result, context.clean_candidates(), targeted=self.targeted)
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
        none.parts = dict.fromkeys(result.parts, none.accuracy)
        return _merge(result, none, attackable)

    @checked
    def perturb(
        self,
        model: Model,
        images: Images,
        labels: Labels,
        *,
        seeds: Seeds | None = None,
        ignore_index: IgnoreIndex = 255,
        start: Images | None = None,
    ) -> Tensor:
        """Returns only the adversarial images, (N, C, h, w), as training needs them, without a last evaluation."""
        output, _, attackable = self._attack(model, images, labels, seeds, ignore_index, start)
        adversarial = images.detach().clone()
        adversarial[attackable] = output.images
        return adversarial

    def _attack(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        seeds: Sequence[int] | None,
        ignore_index: int,
        start: Tensor | None,
    ) -> tuple[AttackOutput, AttackContext, Tensor]:
        check_radius(self.threat, images)
        with torch.inference_mode(False), torch.enable_grad():
            images, labels = images.detach(), labels.detach()
            attackable = (labels != ignore_index).flatten(1).any(1)
            clean = images[attackable]  # a copy, which no model can change
            seeds = content_seeds(images) if seeds is None else list(seeds)
            attackable_seeds = [seed for seed, attack in zip(seeds, attackable.tolist(), strict=True) if attack]
            positions = attackable.nonzero().squeeze(1)
            context = AttackContext(model, clean, labels[attackable], attackable_seeds, ignore_index, positions)
            if start is not None:
                start = self.start_threat.project(start.detach().clone()[attackable].to(clean), clean)
            with frozen(model):
                output = (
                    self.run(context, start)
                    if len(context)
                    else AttackOutput(clean, context.valid_pixels, context.labels)
                )
        context.check_result(output.images, self.budget(context), type(self).__name__)
        return output, context, attackable


@dataclass(frozen=True, kw_only=True)
class Wrapper(Attack):
    """Base of attacks that run another attack in their own way.

    The inner attack decides every property that the wrapper does not define.

    Args:
        attack: the inner attack, or its config.
        label: the attack's name in tables, see ``Attack``.
    """

    attack: Attack
    label: str = field(default='', compare=False)

    def __post_init__(self) -> None:
        build_parts(self, attack=self.attack)

    @property
    def threat(self) -> Threat:
        return self.attack.threat

    @property
    def start_threat(self) -> Threat:
        return self.attack.start_threat

    @property
    def targeted(self) -> bool:
        return self.attack.targeted

    @property
    def is_random(self) -> bool:
        return self.attack.is_random

    @property
    def keeps_strongest(self) -> bool:
        return self.attack.keeps_strongest

    @property
    def steps(self) -> int | None:
        """Number of iterations of the inner attack."""
        return self.attack.steps

    @property
    def title(self) -> str:
        return super().title if self.label else f'{type(self).__name__} of {self.attack.title}'

    @checked
    def with_threat(self, threat: Threat) -> Any:
        return dataclasses.replace(self, attack=self.attack.with_threat(threat))

    @checked
    def with_steps(self, steps: Positive) -> Any:
        return dataclasses.replace(self, attack=self.attack.with_steps(steps))


def _result(context: AttackContext, output: AttackOutput) -> AttackResult:
    assert output.correct is not None and output.predictions is not None
    accuracy = output.correct.double() / context.valid_pixels
    return AttackResult(
        output.images,
        output.predictions,
        accuracy,
        context.forward_passes,
        context.backward_passes,
        output.members,
        output.parts,
    )


def _merge(result: AttackResult, none: AttackResult, attackable: Tensor) -> AttackResult:
    """Returns the results of attacked images and of images without a valid pixel, merged in the batch's order."""

    def merge(ours: Tensor, theirs: Tensor) -> Tensor:
        where = attackable.to(theirs.device)
        whole = theirs.new_empty((len(where), *theirs.shape[1:]))
        whole[where], whole[~where] = ours, theirs
        return whole

    return AttackResult(
        images=merge(result.images, none.images),
        predictions=merge(result.predictions, none.predictions),
        accuracy=merge(result.accuracy, none.accuracy),
        forward_passes=merge(result.forward_passes, none.forward_passes),
        backward_passes=merge(result.backward_passes, none.backward_passes),
        members={name: _merge(member, none.members[name], attackable) for name, member in result.members.items()},
        parts={name: merge(part, none.parts[name]) for name, part in result.parts.items()},
    )


def build_parts(owner: Attack, /, **parts: Any) -> None:
    """Builds, at construction, the parts of an attack that are config dicts, and sets them on the attack."""
    kinds: dict[str, tuple[Registry, type]] = {
        'threat': (THREATS, Threat),
        'objective': (OBJECTIVES, Objective),
        'schedule': (SCHEDULES, Schedule),
        'attack': (ATTACKS, Attack),
    }
    for name, config in parts.items():
        registry, kind = kinds[name]
        part = build(config, registry)
        if not isinstance(part, kind):
            raise UserError(f'{type(owner).__name__}: {name} must be a {registry.kind}; found {part!r}')
        if isinstance(part, Attack):
            check_part_of(owner, part)
        object.__setattr__(owner, name, part)


def check_part_of(owner: Attack, part: Attack) -> None:
    """Raises UserError if an attack can only run by itself, not as a part of another."""
    if part.runs_alone:
        raise UserError(
            f'{type(owner).__name__}: {type(part).__name__} draws the pixels that it changes and that are in no score, '
            'so it cannot be a part of another attack'
        )


def check_steps(attack: Attack, steps: Any) -> None:
    """Raises UserError unless ``steps`` is a positive integer."""
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise UserError(f'{type(attack).__name__}: steps must be a positive integer; found {steps!r}')


def check_start(attack: Attack, objective: Objective, random_start: bool) -> None:
    """Raises UserError if the attack starts at the clean image and the objective has no gradient there."""
    if objective.uses_clean_logits and not random_start:
        raise UserError(
            f'{type(attack).__name__}: {type(objective).__name__} has no gradient at the clean image; '
            'set random_start=True'
        )


def _describe(value: Any) -> Any:
    if isinstance(value, (Attack, Threat, Objective, Region, Schedule)):
        assert dataclasses.is_dataclass(value)
        fields = {item.name: _describe(getattr(value, item.name)) for item in dataclasses.fields(value)}
        if not fields.get('label'):
            fields.pop('label', None)
        if fields.get('region') is None:
            fields.pop('region', None)
        return {'type': type(value).__name__, **fields}
    if isinstance(value, Mapping):
        return {key: _describe(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
