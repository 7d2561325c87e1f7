"""Alignment and sharpness of a model's input gradients, and pictures made with these gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from mmadv.attacks import derive_seed
from mmadv.attacks.freezing import frozen
from mmadv.engine.data import Selection, build_dataset, evenly_spaced
from mmadv.engine.example_collector import displayed
from mmadv.engine.pag_bank import raw_pictures
from mmadv.engine.pag_target_hook import REGION_SIZE, PAGTargetHook
from mmadv.errors import UserError
from mmadv.fields import Positive
from mmadv.models.adapter import SegmentorAdapter, head_ignore_index, stack_images, stack_labels
from mmadv.models.pag_regions import RegionExemplars, region_scores
from mmadv.models.pag_segmentor import PAGMixin
from mmadv.models.pag_targets import (
    BankRequest,
    build_bank_target,
    build_region_target,
    collect_bank,
    collect_regions,
    load_teacher,
)
from mmadv.report.drawing import draw_file
from mmadv.report.measurement import Measurement, Option, Outcome, Picture, Section, register_measurement
from mmadv.report.schema import OTHERS, Schema, entry
from mmadv.report.sheet import draw_sheet
from mmadv.report.table import Table
from mmadv.robustness import (
    Distillation,
    GradientTarget,
    class_scores,
    cosine_similarity,
    high_frequency_share,
    input_gradients,
)
from mmadv.robustness import measure_gradients as measure
from mmadv.synthesis import Descent, ball, move_to_class

SHEET = 'gradients.png'
# Pixels that a class' score is taken over, as in ``class_scores``.
Over = Literal['valid', 'class']
# Target of the gradients if the config trains no aligned gradients.
DEFAULT_TARGET = {'type': 'NearestNeighbour', 'per_class': 8}
# Number of classes on the sheet, and its targeted attacks: the L2 ball allows this root mean square change per value.
CLASSES_SHOWN, ROOT_MEAN_SQUARE, STEPS = 3, 0.1, 40
MEASURES = {
    'cosine': 'cosine to g',
    'cosine_present': 'classes in the image',
    'cosine_absent': 'other classes',
    'high_frequency': 'high-frequency share',
    'image_high_frequency': 'of the images',
}


@dataclass(frozen=True)
class GradientTargets(Schema):
    """Targets that the gradients are compared with: the ``type`` of g(x, t), its settings, and ``of``, its examples."""

    type: str
    of: str
    settings: dict[str, Any] = entry(keys=OTHERS, factory=dict)

    def __str__(self) -> str:
        return f'{self.type}, {self.of}'


@dataclass(frozen=True)
class ImageGradients(Schema):
    """Measures of one ``image``."""

    image: str
    cosine: float | None
    high_frequency: float | None


@dataclass(frozen=True)
class SheetAttack(Schema):
    """The attack towards a class on the sheet: its budget and its number of ``steps``."""

    norm: str
    root_mean_square: float
    last_radius: float
    steps: int


@dataclass(frozen=True)
class GradientSheet(Schema):
    """The picture of gradients: its ``file``, the ``images`` and ``classes`` on it, and the ``attack`` towards them."""

    file: str
    images: tuple[str, ...]
    classes: tuple[str, ...]
    attack: SheetAttack


@dataclass(frozen=True)
class GradientsSummary(Schema):
    """Alignment and sharpness of input gradients, means over images and classes.

    Attributes:
        target: targets that the gradients are compared with.
        over: pixels that a class' score is taken over.
        classes: classes whose scores were differentiated.
        without_example: classes that were left out because they have no example.
        cosine: cosine of the gradients to g.
        cosine_present: cosine over the classes that an image holds.
        cosine_absent: cosine over the other classes.
        high_frequency: share of the gradients' energy above a quarter of a cycle per pixel.
        image_high_frequency: the same share for the images themselves.
        per_image: measures of each image.
        sheet: the picture; None if there is no picture.
    """

    target: GradientTargets
    over: str
    classes: tuple[str, ...]
    without_example: tuple[str, ...]
    cosine: float | None
    cosine_present: float | None
    cosine_absent: float | None
    high_frequency: float | None
    image_high_frequency: float | None
    per_image: tuple[ImageGradients, ...]
    sheet: GradientSheet | None = None


@dataclass(frozen=True)
class Representatives:
    """The origin of the targets g(x, t) of a study.

    Attributes:
        settings: ``type`` and arguments of the target.
        source: the kind of the examples, in words.
        classes: requested classes.
        over: pixels that a class' score is taken over, as in ``class_scores``, or 'region' for region targets.
        make: height and width of an image -> the target, and the classes that have no example.
    """

    settings: Mapping[str, Any]
    source: str
    classes: tuple[int, ...]
    over: Over | Literal['region']
    make: Callable[[tuple[int, int]], tuple[GradientTarget | RegionExemplars, list[int]]]


@register_measurement
@dataclass
class InputGradients(Measurement):
    """Measures the alignment and sharpness of the model's input gradients, and paints pictures with the gradients.

    The gradients are those of each class' score with respect to the pixels of the network's input. If the config has a
    ``PAGTargetHook``, the targets are those of training: the same kind of target on a bank of training images, or the
    same teacher. Otherwise the targets point to the nearest of eight other test images of each class. Images without a
    valid pixel are left out. Classes without an example are left out too.

    Args:
        images: number of images, spread evenly over the images of the run.

    Raises:
        UserError: before the run, if no test image is left for the examples, or a training set or teacher of the config
            cannot be read; after it, if a gradient is not finite, or no image holds enough pixels of any class.
    """

    images: Positive = 8
    _source: Representatives | None = field(default=None, init=False, repr=False)
    _columns: dict[str, list[np.ndarray]] = field(default_factory=dict, init=False, repr=False)

    name: ClassVar[str] = 'gradients'
    summary: ClassVar[Any] = GradientsSummary
    of_run: ClassVar[bool] = True
    options: ClassVar[tuple[Option, ...]] = (
        Option(
            '--gradients',
            'images',
            {
                'nargs': '?',
                'const': 8,
                'metavar': 'IMAGES',
                'help': 'measure how aligned and how sharp the input gradients are, on a few images (default: 8)',
            },
        ),
    )

    def settings(self, spec: Any) -> Any:
        """Returns None, so that a run may be resumed with other settings; no image stores this measurement."""
        return None

    def prepare(self, context: Any) -> Any:
        indexes = context.selection.indexes
        self._source = _representatives(context, [indexes[position] for position in self._positions(context)])
        return context.predictor

    def summarise(self, context: Any, outcome: Outcome) -> GradientsSummary:
        assert self._source is not None
        targets: dict[tuple[int, int], tuple[GradientTarget | RegionExemplars, list[int]]] = {}
        rows: list[dict[str, Any]] = []
        missing: set[int] = set()
        shown: list[tuple[SegmentorAdapter, Tensor, Tensor, str]] = []
        for position in self._positions(context):
            data = context.selection[position]
            model, images, labels = context.predictor.prepared([data['inputs']], [data['data_samples']])
            if not bool((labels != model.ignore_index).any()):
                continue
            size = (images.shape[2], images.shape[3])
            if size not in targets:
                targets = {size: self._source.make(size)}  # one size at a time: banks are large
            goal, without = targets[size]
            missing |= set(without)
            classes = [k for k in self._source.classes if k not in without]
            name = data['data_samples'].metainfo['image_name']
            goal = goal.to(images.device)
            if isinstance(goal, RegionExemplars):
                values = _measured_regions(model, images, labels, goal, derive_seed('gradients', position))
            else:
                values = _measured(model, images, labels, classes, goal, _pixels_of(self._source.over))
            rows.append({'image': name, **values})
            shown.append((model, images, labels, name))
        names = context.selection.metainfo['classes']
        present = [k for k in self._source.classes if k not in missing]
        summary = _summary(rows, names, present, sorted(missing), self._source)
        if shown[: context.show]:
            summary = replace(summary, sheet=self._paint(shown[: context.show], present, names, context.rgb))
        return summary

    def write(self, context: Any, folder: Path, outcome: Outcome, summary: GradientsSummary) -> GradientsSummary:
        """Writes the sheet, if there is one."""
        sheet, path = summary.sheet, folder / SHEET
        if sheet is not None and not draw_file(path, lambda: draw_sheet(self._columns, sheet.images, path)):
            return replace(summary, sheet=None)
        return summary

    def _positions(self, context: Any) -> list[int]:
        return evenly_spaced(len(context.selection), self.images)

    def _paint(
        self,
        shown: list[tuple[SegmentorAdapter, Tensor, Tensor, str]],
        classes: list[int],
        names: Sequence[str],
        rgb: bool,
    ) -> GradientSheet:
        """Makes pictures of the gradients of a few classes, and of the images moved towards these classes."""
        assert self._source is not None
        chosen = _chosen([labels[labels != model.ignore_index] for model, _, labels, _ in shown], classes)
        columns: dict[str, list[np.ndarray]] = {'image': []}
        columns |= {f'gradient: {names[k]}': [] for k in chosen} | {f'towards {names[k]}': [] for k in chosen}
        radius = 0.0
        for model, images, labels, _ in shown:
            columns['image'].append(displayed(images[0], rgb))
            radius = ROOT_MEAN_SQUARE * math.sqrt(images[0].numel())
            descent = Descent(steps=STEPS, step_size=2 * radius / STEPS, threat=ball('L2', radius))
            for k in chosen:
                wanted = torch.tensor([k], device=images.device)
                with torch.enable_grad():
                    inputs = images.detach().requires_grad_()
                    pixels: dict[str, Any] = {'over': _pixels_of(self._source.over), 'ignore_index': model.ignore_index}
                    gradient = input_gradients(class_scores(model(inputs), wanted[:, None], labels, **pixels), inputs)
                columns[f'gradient: {names[k]}'].append(displayed(_around_grey(gradient[0, 0]), rgb))
                moved = move_to_class(model, images, wanted, descent=descent)
                columns[f'towards {names[k]}'].append(displayed(moved[0], rgb))
        self._columns = columns
        attack = SheetAttack('L2', root_mean_square=ROOT_MEAN_SQUARE, last_radius=radius, steps=STEPS)
        rows = tuple(name for *_, name in shown)
        return GradientSheet(SHEET, rows, tuple(names[k] for k in chosen), attack)

    @classmethod
    def files(cls, summary: GradientsSummary) -> dict[str, str]:
        return {'sheet.file': summary.sheet.file} if summary.sheet else {}

    @classmethod
    def text(cls, summary: GradientsSummary) -> str:
        values = {name: number(getattr(summary, name)) for name in MEASURES}
        lines = [
            f'input gradients of {len(summary.per_image)} images and {len(summary.classes)} class scores; '
            f'targets g: {summary.target}',
            f'  cosine to g           {values["cosine"]}  ({values["cosine_present"]} for the classes in the image, '
            f'{values["cosine_absent"]} for the others)',
            f'  high-frequency share  {values["high_frequency"]}  ({values["image_high_frequency"]} of the images, '
            '0.804 of white noise)',
        ]
        if summary.without_example:
            lines.append(f'  left out, without an example: {", ".join(summary.without_example)}')
        return '\n'.join(lines)

    @classmethod
    def section(cls, summaries: Mapping[str, GradientsSummary]) -> Section:
        """Returns one row for each run (name, targets and measures), and the sheets."""
        rows = tuple(
            (name, str(summary.target), *(number(getattr(summary, key)) for key in MEASURES))
            for name, summary in summaries.items()
        )
        header = ('run', 'targets g', *MEASURES.values())
        table = Table(header, rows, text_columns=2, caption='Mean over images and classes')
        text = 'gradients of some class scores, and images moved towards the classes'
        pictures = {
            name: [Picture(file, text) for file in cls.files(summary).values()] for name, summary in summaries.items()
        }
        return Section('Input gradients', table, pictures)


def number(value: float | None) -> str:
    """Returns a measure with three decimals, or '-' if there is none."""
    return '-' if value is None else f'{value:.3f}'


def _measured(
    model: SegmentorAdapter, images: Tensor, labels: Tensor, classes: list[int], goal: GradientTarget, over: Over
) -> dict[str, Any]:
    """Returns the cosines and shares of the classes of one image, and the classes that the image holds."""
    wanted = torch.tensor([classes], device=images.device)
    result = measure(model, images, labels, wanted, goal, over=over, ignore_index=model.ignore_index)
    cosines, shares = (values[0].double().cpu().numpy() for values in result)
    if not (np.isfinite(cosines).all() and np.isfinite(shares).all()):
        raise UserError('InputGradients: a gradient of the model is not finite; check the checkpoint')
    held = set(labels.unique().tolist())
    return {
        'classes': classes,
        'cosines': cosines,
        'shares': shares,
        'held': np.array([k in held for k in classes]),
        'own_share': float(high_frequency_share(images)[0]),
    }


def _measured_regions(
    model: SegmentorAdapter, images: Tensor, labels: Tensor, goal: RegionExemplars, seed: int
) -> dict[str, Any]:
    """Returns the cosine and share of the score of one image's repainted regions; none if it has no region."""
    repainted = goal.repaint(images, labels, torch.Generator().manual_seed(seed))
    with torch.enable_grad(), frozen(model):
        inputs = images.detach().requires_grad_()
        gradients = input_gradients(region_scores(model(inputs), labels, repainted)[:, None], inputs)
    cosines = cosine_similarity(gradients, goal.directions(images, labels, repainted)[:, None])
    shares = high_frequency_share(gradients)
    if not (bool(cosines.isfinite().all()) and bool(shares.isfinite().all())):
        raise UserError('InputGradients: a gradient of the model is not finite; check the checkpoint')
    found = bool((repainted.labels != labels).any())
    return {
        'cosines': cosines[0, : int(found)].double().cpu().numpy(),
        'shares': shares[0, : int(found)].double().cpu().numpy(),
        'held': np.ones(int(found), bool),
        'own_share': float(high_frequency_share(images)[0]),
    }


def _pixels_of(over: str) -> Over:
    """Returns the pixels of a class' score on the sheet; in the region form all valid ones stand for the class."""
    return 'class' if over == 'class' else 'valid'


def _summary(
    rows: list[dict[str, Any]], names: Sequence[str], classes: list[int], missing: list[int], source: Representatives
) -> GradientsSummary:
    def mean(values: list[np.ndarray]) -> float | None:
        joined = np.concatenate(values) if values else np.zeros(0)
        return float(joined.mean()) if joined.size else None

    return GradientsSummary(
        target=GradientTargets.from_json({**source.settings, 'of': source.source}),
        over=source.over,
        classes=tuple(names[k] for k in classes),
        without_example=tuple(names[k] for k in missing),
        cosine=mean([row['cosines'] for row in rows]),
        cosine_present=mean([row['cosines'][row['held']] for row in rows]),
        cosine_absent=mean([row['cosines'][~row['held']] for row in rows]),
        high_frequency=mean([row['shares'] for row in rows]),
        image_high_frequency=mean([np.array([row['own_share']]) for row in rows]),
        per_image=tuple(
            ImageGradients(row['image'], cosine=mean([row['cosines']]), high_frequency=mean([row['shares']]))
            for row in rows
        ),
    )


def _representatives(context: Any, measured: list[int]) -> Representatives:
    segmentor, number_of_classes = context.predictor.segmentor, context.predictor.num_classes
    aligned = isinstance(segmentor, PAGMixin)
    classes = tuple(segmentor.pag_classes if aligned else range(number_of_classes))
    over: Over = segmentor.pag_over if aligned else 'valid'
    hooks = [hook for hook in context.spec.config.get('custom_hooks') or [] if hook.get('type') == 'PAGTargetHook']
    if not hooks:
        size = len(context.selection.dataset)
        others = [index for index in range(size) if index not in set(measured)]
        if not others:
            raise UserError(
                f'InputGradients.images {len(measured)} leaves none of {size} test images to stand for the classes; '
                'give a smaller number'
            )
        pictures = _test_pictures(context.selection, others)
        make = _bank_maker(number_of_classes, classes, DEFAULT_TARGET, lambda: pictures(context.spec.seed))
        return Representatives(DEFAULT_TARGET, 'other test images', classes, over, make)
    hook = PAGTargetHook(**{key: value for key, value in hooks[0].items() if key not in ('type', 'priority')})
    if hook.target['type'] == 'Distillation':
        teacher = load_teacher(hook.target['config'], hook.target['checkpoint'], number_of_classes)
        goal = Distillation(teacher, number_of_classes, over=over)
        return Representatives(hook.target, 'a teacher', classes, over, lambda _: (goal, []))
    if context.spec.training_data is None:
        raise UserError(
            'InputGradients takes the targets of PAGTargetHook from the training images, but the config has no '
            'train_dataloader; add one, or take a config without PAGTargetHook'
        )
    dataset = build_dataset(context.spec.training_data, 'train_dataloader.dataset')
    settings = {**hook.target, 'per_class': hook.per_class}

    def training_pictures() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return raw_pictures(dataset, hook.seed, hook.max_images)

    if not hook.of_regions:
        make = _bank_maker(number_of_classes, classes, settings, training_pictures)
        return Representatives(settings, 'training images', classes, over, make)
    ignore_index = head_ignore_index(segmentor)
    request = BankRequest(classes, number_of_classes, hook.per_class, hook.size or REGION_SIZE, ignore_index)
    without = [k for k in range(number_of_classes) if k not in classes]
    region_goal = build_region_target(settings, collect_regions(training_pictures(), request), without, ignore_index)
    return Representatives(settings, 'training images', classes, 'region', lambda _: (region_goal, []))


def _bank_maker(
    number_of_classes: int,
    classes: tuple[int, ...],
    settings: Mapping[str, Any],
    pictures: Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]],
) -> Callable[[tuple[int, int]], tuple[GradientTarget, list[int]]]:
    target_settings = {key: value for key, value in settings.items() if key != 'per_class'}

    def make(size: tuple[int, int]) -> tuple[GradientTarget, list[int]]:
        bank = collect_bank(pictures(), BankRequest(classes, number_of_classes, settings['per_class'], size))
        without = [k for k in range(number_of_classes) if int(bank.counts[k]) == 0]
        if len(without) == number_of_classes:
            raise UserError('InputGradients: no image holds enough pixels of any class to stand for it')
        return build_bank_target(target_settings, bank, without), [k for k in without if k in classes]

    return make


def _test_pictures(
    selection: Selection, indexes: list[int]
) -> Callable[[int], Iterator[tuple[np.ndarray, np.ndarray]]]:
    """Returns a function of a seed, which yields test images as the pipeline gives them, and labels of their size."""
    others = Selection(selection.dataset, indexes)

    def pictures(seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for position in torch.randperm(len(others), generator=torch.Generator().manual_seed(seed)).tolist():
            data = others[position]
            sample = data['data_samples']
            image = (stack_images([data['inputs']], [sample])[0] * 255).round().to(torch.uint8)
            labels: np.ndarray = stack_labels([sample])[0].numpy().astype(np.int32)
            labels = cv2.resize(labels, (image.shape[2], image.shape[1]), interpolation=cv2.INTER_NEAREST)
            yield image.permute(1, 2, 0).numpy(), labels

    return pictures


def _chosen(labels: Sequence[Tensor], classes: list[int]) -> list[int]:
    """Returns the classes of the sheet, without the class of most pixels, which is usually a background."""
    most = int(torch.cat([label.flatten().cpu() for label in labels]).bincount().argmax())
    candidates = [k for k in classes if k != most] or classes
    return [candidates[i] for i in evenly_spaced(len(candidates), CLASSES_SHOWN)]


def _around_grey(gradient: Tensor) -> Tensor:
    """Returns a gradient (C, h, w) as a picture around mid-grey; the largest one per cent of values is clipped."""
    largest = gradient.abs().flatten().float().quantile(0.99).clamp_min(torch.finfo(torch.float32).tiny)
    return (0.5 + 0.5 * gradient.float() / largest).clamp(0, 1)
