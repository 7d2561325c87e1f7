"""Clean and attacked predictions, at every radius, for test images of one geometry."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.config import Config
from mmseg.models.segmentors import EncoderDecoder
from torch import Tensor

from mmadv.attacks import Attack, AttackResult, NonFinite, Pixels, WorstCase, derive_seed, parse_radius
from mmadv.attacks.patch import PatchAttack
from mmadv.attacks.result import joined
from mmadv.attacks.sweep import leading, strengthened, unsolved, without_passes
from mmadv.checkpoints.loading import load_weights
from mmadv.config_paths import cfg
from mmadv.engine.attack_regions import KEY, AttackRegion, PatchRegion, parse_attack_region, regions_of
from mmadv.engine.attack_targets import AttackTarget, parse_attack_target, with_targeted
from mmadv.engine.data import classes_differ
from mmadv.engine.spec import EvaluationSpec
from mmadv.errors import UserError
from mmadv.models.adapter import SegmentorAdapter, stack_images, stack_labels, unwrap
from mmadv.models.building import build_segmentor
from mmadv.models.segmentors.imported_segmentor import own_weights
from mmadv.report.run import SourceModel


class ImageFailed(UserError):
    """The model failed on one image.

    Args:
        position: position of the image in the given group.
        reason: a sentence that names the image.
    """

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(reason)
        self.position = position


@dataclass
class AttackedAtRadius:
    """The outcome of an attack at one radius on a group of n images.

    Attributes:
        predictions: member -> (n, H, W) int64, on the CPU.
        worst: (n, H, W) int64, worst-case predictions over all members, on the CPU.
        images: attacked images (n, C, h, w), on the device; None at radius 0.
        forward_passes: (n,) int64.
        backward_passes: (n,) int64.
        seconds: time of the attack in seconds.
        member_images: attacked images that are transferred, member -> (n, C, h, w), on the device.
        reached: [pixels reached, pixels wanted] of each image, for an attack with a target.
    """

    predictions: dict[str, Tensor]
    worst: Tensor
    images: Tensor | None
    forward_passes: Tensor
    backward_passes: Tensor
    seconds: float
    member_images: dict[str, Tensor]
    reached: list[list[int]] | None = None


@dataclass(frozen=True)
class AttackInput:
    """The inputs of an attack on n images.

    Attributes:
        model: images (n, C, h, w) or some of them -> logits.
        images: (n, C, h, w) in [0, 1], on the device.
        labels: (n, H, W) int64, on the device; the classes that a target wants, if there is a target.
        clean: clean predictions of the evaluated model, (n, H, W) int64, on the device.
        names: names of the images.
        regions: the pixels that the attack may change, (n, 1, h, w) bool, on the CPU; None for all.
    """

    model: SegmentorAdapter
    images: Tensor
    labels: Tensor
    clean: Tensor
    names: Sequence[str]
    regions: Tensor | None = None


@dataclass
class PredictedGroup:
    """A group of n images, with its clean predictions and the outcomes of the attacks.

    Attributes:
        model: images (n, C, h, w) or some of them -> logits.
        names: names of the images.
        indexes: indexes of the images in their dataset.
        images: (n, C, h, w) in [0, 1], as the model's preprocessor got them, on the device.
        labels: (n, H, W) int64, on the CPU, with ``ignore_index`` at pixels that are not attacked.
        ignore_index: label of the pixels that are in no count.
        clean: clean predictions, (n, H, W) int64, on the CPU.
        clean_seconds: time of the clean predictions in seconds.
        attacked: radius -> outcome.
        scored_labels: labels as they are in the data, (n, H, W) int64, on the CPU.
        regions: the regions of the attack at the size of the labels, (n, H, W) bool, on the CPU; None without a region.
        void: labels in ``scored_labels`` that are neither a class nor ``ignore_index``.
    """

    model: SegmentorAdapter
    names: Sequence[str]
    indexes: Sequence[int]
    images: Tensor
    labels: Tensor
    ignore_index: int
    clean: Tensor
    clean_seconds: float = 0.0
    attacked: dict[str, AttackedAtRadius] = field(default_factory=dict)
    scored_labels: Tensor = field(default_factory=lambda: torch.empty(0))
    void: tuple[int, ...] = ()
    regions: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Predictor:
    """Predicts groups of samples of one geometry, clean and under an attack at several radii.

    Attributes:
        segmentor: the model, unwrapped.
        attacks: radius -> attack at this radius; None for radius 0.
        seed: seed of all noise. The noise is keyed by this seed and the image's name.
        title: name of the attack, for messages.
        num_classes: number of classes of the dataset.
        ignore_index: label of the pixels that are in no score; None for the ``ignore_index`` of the segmentor's head.
        source: another model, unwrapped, that is attacked instead; the segmentor predicts the attacked images.
        target: target of the attack; None for anything but the labels.
        region: the region of the attack; None for the whole image.
        shares_radii: whether the result at a radius is a candidate at the larger radii.
    """

    segmentor: EncoderDecoder
    attacks: Mapping[str, Attack | None]
    seed: int
    title: str
    num_classes: int
    ignore_index: int | None = None
    source: EncoderDecoder | None = None
    target: AttackTarget | None = None
    region: AttackRegion | None = None
    shares_radii: bool = False

    @classmethod
    def of(
        cls, spec: EvaluationSpec, segmentor: EncoderDecoder, classes: Sequence[str], ignore_index: int
    ) -> Predictor:
        """Returns the predictor of an evaluation.

        Args:
            spec: description of the evaluation.
            segmentor: the evaluated segmentor, unwrapped; a source gets its device and precision.
            classes: class names of the dataset.
            ignore_index: label of the pixels that are in no score.

        Raises:
            UserError: the attack cannot have a target, or the source cannot be loaded.
        """
        attacks = spec.attacks
        target = parse_attack_target(spec.target, classes) if spec.target else None
        region = parse_attack_region(spec.region, classes) if spec.region else None
        if isinstance(spec.attack, PatchAttack):
            region = PatchRegion(spec.attack, spec.seed)
        if region is not None and region.fixed is not None:
            attacks = {radius: attack and attack.inside(region.fixed) for radius, attack in attacks.items()}
        if target is not None:
            attacks = {
                radius: attack and with_targeted(attack, targeted=target.targeted) for radius, attack in attacks.items()
            }
        return cls(
            segmentor,
            attacks,
            seed=spec.seed,
            title=spec.title,
            num_classes=len(classes),
            ignore_index=ignore_index,
            source=None if spec.source is None else load_source(spec.source, next(segmentor.parameters())),
            target=target,
            region=region,
            shares_radii=spec.sweep == 'shared',
        )

    @property
    def members(self) -> list[str]:
        """Returns the names of the attack's members."""
        attack = next(filter(None, self.attacks.values()), None)
        return list(attack.attacks) if isinstance(attack, WorstCase) else ['attack']

    def __call__(self, inputs: Sequence[Tensor], samples: Sequence[Any]) -> PredictedGroup:
        """Returns the predictions for a group; the samples stay unchanged.

        Args:
            inputs: (C, h, w) images as the pipeline gives them.
            samples: their data samples, all of one ``geometry``.

        Raises:
            ImageFailed: the logits of an image are not finite.
            UserError: model, images and labels do not fit together.
        """
        model, images, labels = self.prepared(inputs, samples)
        attacked = model if self.source is None else SegmentorAdapter(self.source, samples, model.ignore_index)
        if attacked.num_classes != self.num_classes:
            raise UserError(f'the source predicts {attacked.num_classes} classes, the dataset has {self.num_classes}')
        names = [sample.metainfo['image_name'] for sample in samples]
        start = time.perf_counter()
        clean = self._predict_clean(model, images, names)
        seconds = time.perf_counter() - start
        wanted = labels if self.target is None else self.target.wanted(labels, names, model.ignore_index)
        regions = None if self.region is None else regions_of(samples, images.shape[2:])
        outcomes = self._attack_at_all_radii(AttackInput(attacked, images, wanted, clean, names, regions))
        for radius, attack in self.attacks.items():
            if self.source is not None and attack is not None:
                self._transfer(outcomes[radius], model, labels, names)
            if self.target is not None:
                self._compare(outcomes[radius], labels.cpu(), names, model.ignore_index)
        return PredictedGroup(
            model=model,
            names=names,
            indexes=[sample.metainfo.get('sample_idx', n) for n, sample in enumerate(samples)],
            images=images,
            labels=labels.cpu(),
            ignore_index=model.ignore_index,
            clean=clean.cpu(),
            clean_seconds=seconds,
            attacked=outcomes,
            scored_labels=stack_labels(samples).cpu(),
            void=model.void,
            regions=None if self.region is None else torch.stack([sample.metainfo[KEY] for sample in samples]),
        )

    def _attack_at_all_radii(self, given: AttackInput) -> dict[str, AttackedAtRadius]:
        """Returns radius -> outcome, in the order of ``attacks``."""
        outcomes: dict[str, AttackedAtRadius] = {}
        smaller: AttackResult | None = None
        for radius in sorted(self.attacks, key=parse_radius):
            outcomes[radius], result = self._attack(radius, given, smaller)
            smaller = result if self.shares_radii else None
        return {radius: outcomes[radius] for radius in self.attacks}

    def prepared(self, inputs: Sequence[Tensor], samples: Sequence[Any]) -> tuple[SegmentorAdapter, Tensor, Tensor]:
        """Returns the inputs of an attack, on the device: model, images (n, C, h, w) in [0, 1] and labels (n, H, W).

        Arguments and errors are the same as for a call of the predictor.
        """
        model = SegmentorAdapter(self.segmentor, samples, self.ignore_index)
        if model.num_classes != self.num_classes:
            raise UserError(classes_differ(model.num_classes, self.num_classes))
        images, labels = stack_images(inputs, samples), model.attackable(stack_labels(samples))
        model.check_labels(labels, samples)
        parameter = next(self.segmentor.parameters())
        # Attacks compute in float32 or float64, also if the model has half precision.
        dtype = torch.float64 if parameter.dtype == torch.float64 else torch.float32
        return model, images.to(parameter.device, dtype), labels.to(parameter.device)

    def _predict_clean(self, model: SegmentorAdapter, images: Tensor, names: list[str]) -> Tensor:
        logits = model(images)
        finite = torch.isfinite(logits).flatten(1).all(1)
        if not finite.all():
            position = int((~finite).nonzero()[0])
            raise ImageFailed(
                position,
                f'the model returns NaN or infinite logits for the clean image {names[position]} (iteration 0); '
                'check the checkpoint and the normalisation',
            )
        return logits.argmax(1)

    def _attack(
        self, radius: str, given: AttackInput, smaller: AttackResult | None
    ) -> tuple[AttackedAtRadius, AttackResult | None]:
        """Returns the outcome of the attack at a radius, and its result for the images that have a valid pixel.

        Args:
            radius: text of the radius.
            given: inputs of the attack.
            smaller: result at a smaller radius, whose images are candidates; None if there is none.
        """
        start, attack, images = time.perf_counter(), self.attacks[radius], given.images
        # An image without a valid pixel is left out here, so that its result does not depend on its batch.
        attackable = (given.labels != given.model.ignore_index).flatten(1).any(1)
        if given.regions is not None:
            attackable &= given.regions.flatten(1).any(1).to(attackable.device)
        if attack is None or not bool(attackable.any()):
            none, predictions = torch.zeros(len(images), dtype=torch.int64), given.clean.cpu()
            unchanged = None if attack is None else images
            same = dict.fromkeys(self.members, predictions)
            return AttackedAtRadius(same, predictions, unchanged, none, none, 0.0, dict.fromkeys(same, images)), smaller
        rows = attackable.nonzero().squeeze(1)
        if smaller is None:
            result = self._run(radius, attack, given, rows)
        else:
            left = unsolved(smaller, targeted=attack.targeted).nonzero().squeeze(1)
            clean = accuracy(given.clean[rows], given.labels[rows], given.model.ignore_index)
            result = without_passes(smaller)
            for part, chosen in leading(attack, smaller, clean, left):
                larger = self._run(radius, part, given, rows[chosen])
                result = strengthened(result, chosen, larger, targeted=attack.targeted)

        def all_rows(part: Tensor, others: Tensor) -> Tensor:
            whole = others.to(part.device, part.dtype).clone()
            whole[rows.to(part.device)] = part
            return whole

        worst = all_rows(result.predictions, given.clean).cpu()
        members = {name: all_rows(member.predictions, given.clean).cpu() for name, member in result.members.items()}
        none = torch.zeros(len(images), dtype=torch.int64)
        whole = all_rows(result.images, images)
        member_images = {'attack': whole}
        if result.members and self.source is not None:
            member_images = {name: all_rows(member.images, images) for name, member in result.members.items()}
        outcome = AttackedAtRadius(
            members or {'attack': worst},
            worst,
            whole,
            all_rows(result.forward_passes, none),
            all_rows(result.backward_passes, none),
            time.perf_counter() - start,
            member_images,
        )
        return outcome, result

    def _run(self, radius: str, attack: Attack, given: AttackInput, rows: Tensor) -> AttackResult:
        """Returns the result of an attack, inside the regions if there are any, on the images at ``rows`` (n,)."""
        if given.regions is None or attack.threat.region is not None or attack.runs_alone:
            return self._run_alike(radius, attack, given, rows)
        # Each image has a region of its own, and the threat model of an attack has one region.
        inside = [attack.inside(Pixels(given.regions[row : row + 1])) for row in rows.tolist()]
        return joined([self._run_alike(radius, one, given, rows[n : n + 1]) for n, one in enumerate(inside)])

    def _run_alike(self, radius: str, attack: Attack, given: AttackInput, rows: Tensor) -> AttackResult:
        """Returns the result of one attack on the images at ``rows`` (n,)."""
        names = [given.names[row] for row in rows.tolist()]
        try:
            return attack(
                given.model,
                given.images[rows],
                given.labels[rows],
                seeds=[derive_seed(self.seed, name) for name in names],
                ignore_index=given.model.ignore_index,
                clean_predictions=None if self.source is not None else given.clean[rows],
            )
        except NonFinite as error:
            raise ImageFailed(
                int(rows[error.index]),
                f'{error.description} for the image {names[error.index]} at iteration '
                f'{error.iteration} of {self.title} with radius {radius}; check the checkpoint and the precision',
            ) from error

    def _transfer(self, attacked: AttackedAtRadius, model: SegmentorAdapter, labels: Tensor, names: list[str]) -> None:
        """Replaces the source's predictions and worst case by those of the segmentor on the same attacked images."""
        predictions = {}
        for name, images in attacked.member_images.items():
            predictions[name] = finite_predictions(model, images, names, 'transferred')
            attacked.forward_passes = attacked.forward_passes + 1
        valid = labels != model.ignore_index
        correct = torch.stack([((one == labels) & valid).flatten(1).sum(1) for one in predictions.values()])
        choice, rows = correct.argmin(0), torch.arange(len(labels), device=labels.device)
        attacked.worst = torch.stack(list(predictions.values()))[choice, rows].cpu()
        attacked.images = torch.stack(list(attacked.member_images.values()))[choice, rows]
        attacked.predictions = {name: one.cpu() for name, one in predictions.items()}

    def _compare(self, attacked: AttackedAtRadius, labels: Tensor, names: list[str], ignore_index: int) -> None:
        """Stores in ``reached`` how many pixels of the target were reached."""
        assert self.target is not None
        wanted = self.target.wanted(labels, names, ignore_index)
        attacked.reached = self.target.reached(attacked.worst, wanted, ignore_index)


def accuracy(predictions: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """Returns the share of each image's valid pixels that are predicted as labelled, (n,) float64."""
    valid = labels != ignore_index
    correct = ((predictions == labels) & valid).flatten(1).sum(1)
    return correct.double() / valid.flatten(1).sum(1)


def finite_predictions(model: SegmentorAdapter, images: Tensor, names: Sequence[str], what: str) -> Tensor:
    """Returns the predicted classes of images, (n, H, W), on the device of the images.

    Raises:
        ImageFailed: the logits of an image are not finite; the message has ``what`` and the image's name.
    """
    logits = model(images)
    finite = torch.isfinite(logits).flatten(1).all(1)
    if not finite.all():
        position = int((~finite).nonzero()[0])
        raise ImageFailed(position, f'the model returns NaN or infinite logits for {what} {names[position]}')
    return logits.argmax(1)


def _own_config(name: str) -> str:
    """Returns the path of the config that mmadv brings along under a name; the name itself if there is none."""
    try:
        return cfg(name.removeprefix('configs/'))
    except UserError:
        return name


def load_source(source: SourceModel, like: Tensor) -> EncoderDecoder:
    """Returns the source model, which is attacked in place of the evaluated model.

    Args:
        source: config and checkpoint of the source model; without a checkpoint, the model brings its weights.
        like: a parameter of the evaluated model, which gives the device and the precision.

    Raises:
        UserError: the config or the checkpoint cannot be read, the weights do not fit, or there are none.
    """
    try:
        config = Config.fromfile(source.config if os.path.isfile(source.config) else _own_config(source.config))
    except (OSError, SyntaxError) as error:
        raise UserError(f'the source config {source.config} cannot be read ({error}); check the path') from error
    if source.checkpoint is None and own_weights(config.model) is None:
        raise UserError(
            f'the source config {source.config} needs a checkpoint; only models of Hugging Face and torchvision bring '
            'their weights along'
        )
    segmentor = unwrap(build_segmentor(config))
    if source.checkpoint is not None:
        load_weights(segmentor, source.checkpoint)
    return segmentor.to(like).eval()
