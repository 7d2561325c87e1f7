"""Attacks a trained segmentor at several radii, and writes its mIoU and pixel accuracy, clean and at each radius.

The numbers are those of ``mmadv test``. That command also draws a report, which a study with hundreds of attacks does
not need.
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from mmseg.utils import register_all_modules
from torch import nn

from mmadv.attacks import BIM, Attack, Linf, derive_seed, preset
from mmadv.checkpoints.loading import file_sha256, load_weights
from mmadv.commands.provenance import hardware, versions
from mmadv.engine.data import Selection, build_dataset, evenly_spaced
from mmadv.models import SegmentorAdapter, stack_images, stack_labels
from mmadv.models.building import build_segmentor
from mmadv.robustness import Counts, count, metrics

# Ten steps of 0.004, whatever the radius: the smallest step that reaches 0.04.
BIM_STEPS, BIM_STEP_SIZE = 10, 0.004
AUTO_PASSES = 400
SEA_ITERATIONS = 100
ATTACKS: dict[str, Callable[[str], Attack]] = {
    'FGSM': lambda radius: preset('fgsm', radius),
    'BIM-10': lambda radius: BIM(
        threat=Linf(radius=radius), steps=BIM_STEPS, step_size=BIM_STEP_SIZE, keep='lowest_accuracy'
    ),
    'auto': lambda radius: preset('auto', radius, AUTO_PASSES),
    'SEA': lambda radius: preset('sea', radius, SEA_ITERATIONS),
}
BATCH = 8


def attack_model(arguments: Sequence[str]) -> None:
    """Attacks a model, and writes the numbers.

    Args:
        arguments: config, weights, file to write, name of the attack, number of images (spread evenly over the test
            data), and the radii.
    """
    config_file, weights, out, name, images, *radii = arguments
    segmentor, dataset = load_tested(config_file, weights)
    segmentor.to(memory_format=torch.channels_last)
    chosen = Selection(dataset, evenly_spaced(len(dataset), int(images)))
    begin = time.process_time()
    content = {
        'attack': name,
        'images': len(chosen),
        'numbers': {'0': numbers(segmentor, chosen, None)}
        | {radius: numbers(segmentor, chosen, ATTACKS[name](radius)) for radius in radii},
        'seconds': round(time.process_time() - begin, 1),
        'sha256': file_sha256(weights),
        'date': datetime.date.today().isoformat(),
        'hardware': hardware(),
        'versions': versions(),
    }
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')


def load_tested(config_file: str | Path, weights: str | Path) -> tuple[nn.Module, Any]:
    """Returns a trained segmentor in eval mode, and the data set that it is tested on."""
    register_all_modules()
    config = Config.fromfile(config_file)
    segmentor = build_segmentor(config).eval()
    load_weights(segmentor, weights)
    with DefaultScope.overwrite_default_scope('mmseg'):
        return segmentor, build_dataset(config.test_dataloader.dataset, 'test_dataloader.dataset')


def under_auto(
    segmentor: nn.Module, dataset: Any, budgets: Sequence[tuple[str, str]], images: int
) -> dict[str, dict[str, Any]]:
    """Returns the clean numbers on all images, 'clean', and 'numbers' on some: clean, 'none', and under `auto`.

    Args:
        segmentor: of mmseg, in eval mode.
        dataset: with labels.
        budgets: threats with their radii, such as ('Linf', '2/255'); 'Linf 2/255' is the key of the numbers.
        images: number of images that are attacked, spread evenly over the data.
    """
    chosen = Selection(dataset, evenly_spaced(len(dataset), images))
    attacked = {
        f'{threat} {radius}': numbers(segmentor, chosen, preset('auto', radius, threat=threat))
        for threat, radius in budgets
    }
    return {
        'clean': numbers(segmentor, Selection(dataset, list(range(len(dataset)))), None),
        'numbers': {'none': numbers(segmentor, chosen, None)} | attacked,
    }


def numbers(segmentor: nn.Module, dataset: Selection, attack: Attack | None) -> dict[str, float]:
    """Returns the mIoU and the pixel accuracy of a model on all images of a dataset, which are of one size.

    Args:
        segmentor: of mmseg, in eval mode.
        dataset: with labels.
        attack: None for clean images.
    """
    parts = []
    for start in range(0, len(dataset), BATCH):
        indexes = range(start, min(start + BATCH, len(dataset)))
        batch = pseudo_collate([dataset[index] for index in indexes])
        samples = batch['data_samples']
        model = SegmentorAdapter(segmentor, samples)
        images, labels = stack_images(batch['inputs']), stack_labels(samples)
        parts.append(predictions_counted(model, images, labels, attack, indexes))
    values = metrics(Counts.concatenate(parts))
    return {metric: values[metric] for metric in ('mIoU', 'aAcc')}


def predictions_counted(
    model: SegmentorAdapter, images: torch.Tensor, labels: torch.Tensor, attack: Attack | None, indexes: Sequence[int]
) -> Counts:
    """Returns the counts of a batch; noise follows from the indexes of its images."""
    if attack is None:
        with torch.no_grad():
            predictions = model(images).argmax(1)
    else:
        seeds = [derive_seed(0, index) for index in indexes]
        predictions = attack(model, images, labels, seeds=seeds, ignore_index=model.ignore_index).predictions
    return count(predictions, labels, model.num_classes, model.ignore_index)
