"""``mmadv test --gradients``: how aligned and how sharp a model's input gradients are, and what they paint."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor

from mmadv.engine.attack_test_loop import AttackTestLoop
from mmadv.engine.data import Selection, build_dataset, evenly_spaced
from mmadv.engine.pag_bank import raw_pictures
from mmadv.engine.pag_target_hook import BANK_TARGETS, PAGTargetHook
from mmadv.errors import UserError
from mmadv.models.adapter import SegmentorAdapter, stack_images, stack_labels, unwrap
from mmadv.models.pag_segmentor import PAGMixin
from mmadv.models.pag_targets import BankRequest, build_bank_target, collect_bank, load_teacher
from mmadv.report.drawing import draw_file
from mmadv.report.sheet import draw_sheet
from mmadv.robustness import Distillation, GradientTarget, class_scores, high_frequency_share, input_gradients
from mmadv.robustness import measure_gradients as measure
from mmadv.synthesis import Descent, ball, target

SHEET = 'gradients.png'
# What stands for the classes where the config trains no aligned gradients.
DEFAULT_TARGET = {'type': 'NearestNeighbour', 'per_class': 8}
# Classes of the sheet, and the targeted attacks on it: an L2 ball with this root mean square change of a value.
CLASSES_SHOWN, ROOT_MEAN_SQUARE, STEPS = 3, 0.1, 40


@dataclass(frozen=True)
class Representatives:
    """Where the targets g(x, t) of a study come from.

    Attributes:
        settings: ``type`` and arguments of the target.
        source: in words, what the examples are.
        classes: that are asked for.
        over: pixels of a class' score, as in ``class_scores``.
        make: height and width of an image -> the target, and the classes that it has no example of.
    """

    settings: Mapping[str, Any]
    source: str
    classes: tuple[int, ...]
    over: str
    make: Callable[[tuple[int, int]], tuple[GradientTarget, list[int]]]


class GradientStudy:
    """Alignment and sharpness of the gradients of a loop's model, and pictures of what they lead to.

    Gradients are those of each class' score with respect to the pixels of the network's input. Their targets are
    those of training where the config has a ``PAGTargetHook``: the same kind of target on a bank of training images,
    or the same teacher. Otherwise they point to the nearest of eight other test images of each class. Images without
    a valid pixel are left out, and so are classes that no example was found of.

    Args:
        loop: of the command, before its run.
        config: of the command line.
        number: of images, spread evenly over those of the run.

    Attributes:
        results: for results.json, as docs/results.md describes them.

    Raises:
        UserError: no test image is left for the examples; a training set or teacher of the config cannot be read.
    """

    def __init__(self, loop: AttackTestLoop, config: Config, number: int) -> None:
        self.results: dict[str, Any] = {}
        self._loop = loop
        self._positions = evenly_spaced(len(loop.selection), number)
        measured = [loop.selection.indexes[position] for position in self._positions]
        self._source = _representatives(loop, config, measured)
        self._columns: dict[str, list[np.ndarray]] = {}
        self._rows: list[str] = []

    def run(self, show: int) -> None:
        """Measures the images, after the loop's run, and paints those to be shown.

        Args:
            show: number of images on the sheet at most.

        Raises:
            UserError: a gradient is not finite, or no image holds enough of any class.
        """
        targets: dict[tuple[int, int], tuple[GradientTarget, list[int]]] = {}
        rows: list[dict[str, Any]] = []
        missing: set[int] = set()
        shown: list[tuple[SegmentorAdapter, Tensor, Tensor, str]] = []
        for position in self._positions:
            data = self._loop.selection[position]
            model, images, labels = self._loop.predict.prepared([data['inputs']], [data['data_samples']])
            if not bool((labels != model.ignore_index).any()):
                continue
            size = (images.shape[2], images.shape[3])
            if size not in targets:
                targets = {size: self._source.make(size)}  # one size at a time: banks are large
            goal, without = targets[size]
            missing |= set(without)
            classes = [k for k in self._source.classes if k not in without]
            name = data['data_samples'].metainfo['image_name']
            found = _measured(model, images, labels, classes, goal.to(images.device), self._source.over)
            rows.append({'image': name, **found})
            shown.append((model, images, labels, name))
        names = self._loop.dataloader.dataset.metainfo['classes']
        kept = [k for k in self._source.classes if k not in missing]
        self.results = _summary(rows, names, kept, sorted(missing), self._source)
        if shown[:show]:
            self._paint(shown[:show], kept, names)

    def draw(self, folder: Path) -> None:
        """Writes the sheet, if anything is to be shown."""
        sheet = folder / SHEET
        if self._rows and not draw_file(sheet, lambda: draw_sheet(self._columns, self._rows, sheet)):
            self.results['sheet'] = None

    def _paint(
        self, shown: list[tuple[SegmentorAdapter, Tensor, Tensor, str]], classes: list[int], names: Sequence[str]
    ) -> None:
        """Makes pictures of the gradients of a few classes, and of the images moved towards them."""
        chosen = _chosen([labels[labels != model.ignore_index] for model, _, labels, _ in shown], classes)
        columns: dict[str, list[np.ndarray]] = {'image': []}
        columns |= {f'gradient: {names[k]}': [] for k in chosen} | {f'towards {names[k]}': [] for k in chosen}
        radius = 0.0
        for model, images, labels, name in shown:
            self._rows.append(name)
            columns['image'].append(self._loop.drawn.displayed(images[0]))
            radius = ROOT_MEAN_SQUARE * math.sqrt(images[0].numel())
            descent = Descent(steps=STEPS, step_size=2 * radius / STEPS, threat=ball('L2', radius))
            for k in chosen:
                wanted = torch.tensor([k], device=images.device)
                with torch.enable_grad():
                    inputs = images.detach().requires_grad_()
                    pixels = {'over': self._source.over, 'ignore_index': model.ignore_index}
                    gradient = input_gradients(class_scores(model(inputs), wanted[:, None], labels, **pixels), inputs)
                columns[f'gradient: {names[k]}'].append(self._loop.drawn.displayed(_around_grey(gradient[0, 0])))
                moved = target(model, images, wanted, descent=descent)
                columns[f'towards {names[k]}'].append(self._loop.drawn.displayed(moved[0]))
        self._columns = columns
        self.results['sheet'] = {
            'file': SHEET,
            'images': list(self._rows),
            'classes': [names[k] for k in chosen],
            'attack': {'norm': 'L2', 'root_mean_square': ROOT_MEAN_SQUARE, 'last_radius': radius, 'steps': STEPS},
        }


def _measured(
    model: SegmentorAdapter, images: Tensor, labels: Tensor, classes: list[int], goal: GradientTarget, over: str
) -> dict[str, Any]:
    """Returns cosines and shares of the classes of one image, and which of them it holds."""
    wanted = torch.tensor([classes], device=images.device)
    found = measure(model, images, labels, wanted, goal, over=over, ignore_index=model.ignore_index)
    cosines, shares = (values[0].double().cpu().numpy() for values in found)
    if not (np.isfinite(cosines).all() and np.isfinite(shares).all()):
        raise UserError('--gradients: a gradient of the model is not finite; check the checkpoint')
    held = set(labels.unique().tolist())
    return {
        'classes': classes,
        'cosines': cosines,
        'shares': shares,
        'held': np.array([k in held for k in classes]),
        'own_share': float(high_frequency_share(images)[0]),
    }


def _summary(
    rows: list[dict[str, Any]], names: Sequence[str], classes: list[int], missing: list[int], source: Representatives
) -> dict[str, Any]:
    def mean(values: list[np.ndarray]) -> float | None:
        joined = np.concatenate(values) if values else np.zeros(0)
        return float(joined.mean()) if joined.size else None

    return {
        'target': {**source.settings, 'of': source.source},
        'over': source.over,
        'classes': [names[k] for k in classes],
        'without_example': [names[k] for k in missing],
        'cosine': mean([row['cosines'] for row in rows]),
        'cosine_present': mean([row['cosines'][row['held']] for row in rows]),
        'cosine_absent': mean([row['cosines'][~row['held']] for row in rows]),
        'high_frequency': mean([row['shares'] for row in rows]),
        'image_high_frequency': mean([np.array([row['own_share']]) for row in rows]),
        'per_image': [
            {'image': row['image'], 'cosine': mean([row['cosines']]), 'high_frequency': mean([row['shares']])}
            for row in rows
        ],
        'sheet': None,
    }


def _representatives(loop: AttackTestLoop, config: Config, measured: list[int]) -> Representatives:
    segmentor = unwrap(loop.runner.model)
    aligned = isinstance(segmentor, PAGMixin)
    classes = tuple(segmentor.pag_classes if aligned else range(loop.num_classes))
    over = segmentor.pag_over if aligned else 'valid'
    hooks = [hook for hook in config.get('custom_hooks') or [] if hook.get('type') == 'PAGTargetHook']
    if not hooks:
        others = [index for index in range(loop.dataset_size) if index not in set(measured)]
        if not others:
            raise UserError(
                f'--gradients {len(measured)} leaves none of {loop.dataset_size} test images to stand for the classes; '
                'give a smaller number'
            )
        pictures = _test_pictures(loop, others)
        make = _bank_maker(loop, classes, DEFAULT_TARGET, lambda: pictures(loop.seed))
        return Representatives(DEFAULT_TARGET, 'other test images', classes, over, make)
    hook = PAGTargetHook(**{key: value for key, value in hooks[0].items() if key not in ('type', 'priority')})
    if hook.target['type'] == 'Distillation':
        teacher = load_teacher(hook.target['config'], hook.target['checkpoint'], loop.num_classes)
        goal = Distillation(teacher, loop.num_classes, over=over)
        return Representatives(hook.target, 'a teacher', classes, over, lambda _: (goal, []))
    if config.get('train_dataloader') is None:
        raise UserError(
            '--gradients takes the targets of PAGTargetHook from the training images; the config has no '
            'train_dataloader: take the stock config, for the test images as targets'
        )
    dataset = build_dataset(config.train_dataloader.dataset, 'train_dataloader.dataset')
    settings = {'per_class': BANK_TARGETS[hook.target['type']], **hook.target}
    make = _bank_maker(loop, classes, settings, lambda: raw_pictures(dataset, hook.seed, hook.max_images))
    return Representatives(settings, 'training images', classes, over, make)


def _bank_maker(
    loop: AttackTestLoop,
    classes: tuple[int, ...],
    settings: Mapping[str, Any],
    pictures: Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]],
) -> Callable[[tuple[int, int]], tuple[GradientTarget, list[int]]]:
    given = {key: value for key, value in settings.items() if key != 'per_class'}

    def make(size: tuple[int, int]) -> tuple[GradientTarget, list[int]]:
        bank = collect_bank(pictures(), BankRequest(classes, loop.num_classes, settings['per_class'], size))
        without = [k for k in range(loop.num_classes) if int(bank.counts[k]) == 0]
        if len(without) == loop.num_classes:
            raise UserError('--gradients: no image holds enough pixels of any class to stand for it')
        return build_bank_target(given, bank, without), [k for k in without if k in classes]

    return make


def _test_pictures(
    loop: AttackTestLoop, indexes: list[int]
) -> Callable[[int], Iterator[tuple[np.ndarray, np.ndarray]]]:
    """Returns a function of a seed that yields test images as the pipeline gives them, and labels of their size."""
    selection = Selection(loop.selection.dataset, indexes)

    def pictures(seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for position in torch.randperm(len(selection), generator=torch.Generator().manual_seed(seed)).tolist():
            data = selection[position]
            sample = data['data_samples']
            image = (stack_images([data['inputs']], [sample])[0] * 255).round().to(torch.uint8)
            labels = stack_labels([sample])[0].numpy().astype(np.int32)
            labels = cv2.resize(labels, (image.shape[2], image.shape[1]), interpolation=cv2.INTER_NEAREST)
            yield image.permute(1, 2, 0).numpy(), labels

    return pictures


def _chosen(labels: Sequence[Tensor], classes: list[int]) -> list[int]:
    """Returns the classes of the sheet, without that of most pixels: mostly a background, of which others tell more."""
    most = int(torch.cat([found.flatten().cpu() for found in labels]).bincount().argmax())
    candidates = [k for k in classes if k != most] or classes
    return [candidates[i] for i in evenly_spaced(len(candidates), CLASSES_SHOWN)]


def _around_grey(gradient: Tensor) -> Tensor:
    """Returns a gradient (C, h, w) as a picture around mid-grey, whose one per cent of largest values is cut off."""
    largest = gradient.abs().flatten().float().quantile(0.99).clamp_min(torch.finfo(torch.float32).tiny)
    return (0.5 + 0.5 * gradient.float() / largest).clamp(0, 1)
