"""Attacks ESPNet's published weights on whole frames of CamVid, for docs/espnet.md.

    python projects/espnet/convert.py WEIGHTS.pth work_dirs/espnet/espnet_camvid.pth
    python benchmarks/espnet.py --minutes 60
    python benchmarks/espnet_report.py

A cell is a model, an attack with a number of iterations, a radius and one image. Every finished cell is stored at once
in benchmarks/results/espnet.json. Stored cells do not run again, so an interrupted study can be resumed. The most
informative cells come first. Each loss of SEA is its own cell; the report makes the worst case of them.

The adversarially trained weights are in benchmarks/weights: the training of projects/espnet/README.md, repeated on
another machine, ends with other weights.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from espnet_report import LOSSES, PATH, ROOT, SCHEMA, SCHEMA_VERSION, stored
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmseg.utils import register_all_modules
from torch import Tensor, nn

from mmadv.attacks import Attack, WorstCase, derive_seed, parse_radius, sea
from mmadv.attacks.presets import preset
from mmadv.checkpoints.loading import load_checkpoint_file, load_weights
from mmadv.commands.provenance import hardware, versions
from mmadv.engine.class_weights import class_weights_of_dataset
from mmadv.engine.data import Selection, build_dataset
from mmadv.models import SegmentorAdapter, stack_images, stack_labels
from mmadv.models.building import build_segmentor

PROJECT = ROOT / 'projects/espnet'
CONFIG = 'projects/espnet/configs/espnet_camvid.py'
CHECKPOINTS = {
    'published': 'work_dirs/espnet/espnet_camvid.pth',
    'adversarial': 'benchmarks/weights/espnet_pgd3_camvid.pth',
}
CLASSES = 11
# Eight frames spread evenly over the 101; every first few of the list are spread, too.
IMAGES = tuple(i * 101 // 8 for i in (0, 4, 2, 6, 1, 5, 3, 7))
ALL_LOSSES = tuple(dict.fromkeys(loss for losses in LOSSES.values() for loss in losses))
SINGLE = ('ama', 'auto', 'tsallis', 'segpgd', 'cospgd', 'pgd')
# (attack, iterations): all with 100 passes, but for SEA's later version with 75; then more.
EQUAL = [*((f'sea/{loss}', 25) for loss in ALL_LOSSES), *((name, 100) for name in SINGLE)]
SEA_100 = [(f'sea/{loss}', 100) for loss in ALL_LOSSES]
SEA_300 = [(f'sea/{loss}', 300) for loss in ALL_LOSSES]
DEFAULTS = [('adaptive', 120), ('auto', 400), ('tsallis', 300)]
# (model, number of images, radii, attacks), the most telling first.
PLAN = [
    ('published', 8, ('1/255', '2/255', '4/255', '0.5/255'), EQUAL),
    ('adversarial', 8, ('2/255', '4/255', '1/255', '0.5/255'), EQUAL),
    ('published', 8, ('1/255', '2/255', '4/255', '0.5/255'), SEA_100),
    ('published', 8, ('1/255',), SEA_300),
    ('adversarial', 8, ('2/255', '4/255', '1/255', '0.5/255'), SEA_100),
    ('published', 8, ('1/255', '2/255'), DEFAULTS),
    ('adversarial', 8, ('4/255', '2/255'), DEFAULTS),
]


@dataclass(frozen=True)
class Cell:
    """An attack on one image.

    Attributes:
        model: a key of ``CHECKPOINTS``.
        image: index in the data set.
        radius: of the Linf ball; '0' for the clean image.
        attack: a preset, or a loss of SEA such as 'sea/js'; 'none' for the clean image.
        steps: iterations, of the loss for a loss of SEA.
    """

    model: str
    image: int
    radius: str
    attack: str
    steps: int

    @property
    def key(self) -> str:
        """What the cell is stored under."""
        return f'{self.model} {self.image} {self.radius} {self.attack} {self.steps}'


def cells() -> Iterator[Cell]:
    """Yields every cell of the study, the most telling first; some come twice."""
    for model, count, radii, attacks in PLAN:
        for image in IMAGES[:count]:
            yield Cell(model, image, '0', 'none', 0)
            for radius in radii:
                for attack, steps in attacks:
                    yield Cell(model, image, radius, attack, steps)


def build_attack(cell: Cell, class_weights: Sequence[float]) -> Attack:
    """Returns the attack of a cell; a loss of SEA has the noise that it has in the whole."""
    if not cell.attack.startswith('sea/'):
        return preset(cell.attack, cell.radius, cell.steps)
    loss = cell.attack.removeprefix('sea/')
    ensembles = [sea(cell.radius, cell.steps), sea(cell.radius, cell.steps, 'eccv', class_weights=class_weights)]
    attack = next(ensemble.attacks[loss] for ensemble in ensembles if loss in ensemble.attacks)
    return WorstCase(attacks={loss: attack})


class Watched(nn.Module):
    """A model of one image that notes the lowest accuracy so far, of iterates within the radius, at every pass.

    Args:
        model: images (1, C, h, w) -> logits (1, K, H, W).
        image: the clean one.
        labels: (1, H, W).
        radius: of the Linf ball.
        ignore_index: label of the pixels that do not count.
    """

    gives_up_logits = True

    def __init__(self, model: SegmentorAdapter, image: Tensor, labels: Tensor, radius: float) -> None:
        super().__init__()
        self.model = model
        self.image, self.labels, self.radius = image, labels, radius
        self.passes = 0
        self.curve: list[tuple[int, float]] = []

    def forward(self, images: Tensor) -> Tensor:
        """Returns the model's logits."""
        logits = self.model(images)
        self.passes += 1
        if float((images.detach() - self.image).abs().max()) <= self.radius + 1e-6:
            accuracy = accuracy_of(logits.detach().argmax(1), self.labels, self.model.ignore_index)
            if not self.curve or accuracy < self.curve[-1][1]:
                self.curve.append((self.passes, accuracy))
        return logits


def accuracy_of(predictions: Tensor, labels: Tensor, ignore_index: int) -> float:
    """Returns the share of the valid pixels of one image that are predicted as labelled."""
    valid = labels != ignore_index
    return round(float(((predictions == labels) & valid).sum() / valid.sum()), 6)


def areas(predictions: Tensor, labels: Tensor, ignore_index: int) -> dict[str, list[int]]:
    """Returns per class the pixels that are right, predicted and labelled, of what the mIoU of many images is made."""
    valid = labels != ignore_index
    predictions, labels = predictions[valid], labels[valid]
    parts = {'right': predictions[predictions == labels], 'predicted': predictions, 'labelled': labels}
    return {name: torch.bincount(part, minlength=CLASSES).tolist() for name, part in parts.items()}


def weights_sha256(path: Path) -> str:
    """Returns the SHA-256 of a checkpoint's weights: training again gives the same weights, but not the same file."""
    digest = hashlib.sha256()
    for name, tensor in sorted(load_checkpoint_file(path)['state_dict'].items()):
        digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}'.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


class Experiment:
    """The models, the images, and what is stored.

    Args:
        data_root: of CamVid.
    """

    def __init__(self, data_root: str) -> None:
        sys.path.insert(0, str(PROJECT))
        register_all_modules()
        self.config = Config.fromfile(ROOT / CONFIG)
        self.config.test_dataloader.dataset.data_root = data_root
        self.dataset = build_dataset(self.config.test_dataloader.dataset, 'test_dataloader.dataset')
        self.models: dict[str, nn.Module] = {}
        self.content = stored() or self._new_content()
        store(self.content)

    def _new_content(self) -> dict[str, Any]:
        return {
            'schema': SCHEMA,
            'schema_version': SCHEMA_VERSION,
            'config': CONFIG,
            'checkpoints': {},
            'seed': 0,
            'size': '480x360',
            'class_weights': list(class_weights_of_dataset(self.dataset).value),
            'versions': versions(),
            'hardware': {**hardware(), 'threads': 1},
            'cells': {},
        }

    def model(self, name: str) -> nn.Module | None:
        """Returns a model, None if its checkpoint is not there.

        Raises:
            SystemExit: the checkpoint is not that of the stored cells.
        """
        if name not in self.models and (ROOT / CHECKPOINTS[name]).is_file():
            digest = weights_sha256(ROOT / CHECKPOINTS[name])
            if self.content['checkpoints'].setdefault(name, digest) != digest:
                raise SystemExit(f'{CHECKPOINTS[name]} is not the checkpoint of the stored cells; move one away')
            model = build_segmentor(self.config).eval()
            load_weights(model, ROOT / CHECKPOINTS[name])
            self.models[name] = model.to(memory_format=torch.channels_last)
        return self.models.get(name)

    def measure(self, cell: Cell) -> None:
        """Runs a cell and stores it."""
        model = self.model(cell.model)
        assert model is not None
        batch = pseudo_collate([Selection(self.dataset, [cell.image])[0]])
        samples = batch['data_samples']
        adapter = SegmentorAdapter(model, samples)
        images, labels = stack_images(batch['inputs']), stack_labels(samples)
        name = samples[0].metainfo['image_name']
        cpu, wall = time.process_time(), time.perf_counter()
        record: dict[str, Any] = {'name': name}
        if cell.attack == 'none':
            with torch.no_grad():
                predictions = adapter(images).argmax(1)
            record['accuracy'] = accuracy_of(predictions, labels, adapter.ignore_index)
        else:
            attack = build_attack(cell, self.content['class_weights'])
            watched = Watched(adapter, images, labels, parse_radius(cell.radius))
            seeds = [derive_seed(self.content['seed'], name)]
            result = attack(watched, images, labels, seeds=seeds, ignore_index=adapter.ignore_index)
            predictions = result.predictions
            record |= {
                'accuracy': round(float(result.accuracy), 6),
                'forward': int(result.forward_passes),
                'backward': int(result.backward_passes),
                'curve': watched.curve,
            }
        record |= {
            'areas': areas(predictions, labels, adapter.ignore_index),
            'cpu_seconds': round(time.process_time() - cpu, 1),
            'seconds': round(time.perf_counter() - wall, 1),
            'date': datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        }
        self.content['cells'][cell.key] = record
        store(self.content)
        print(f'{cell.key}: {100 * record["accuracy"]:.2f} after {record["cpu_seconds"]} s', flush=True)


def store(content: dict[str, Any]) -> None:
    """Writes the results, whole or not at all, a cell a line."""
    temporary = PATH.with_suffix('.tmp')
    text = json.dumps({**content, 'cells': {}}, indent=1)
    lines = ',\n'.join(f'  {json.dumps(key)}: {json.dumps(cell)}' for key, cell in content['cells'].items())
    temporary.write_text(text.replace('"cells": {}', f'"cells": {{\n{lines}\n }}') + '\n', encoding='utf-8')
    os.replace(temporary, PATH)


def main() -> None:
    """Runs what has not run yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--minutes', type=float, default=float('inf'), help='wall-clock; later no cell starts')
    parser.add_argument('--data-root', default='data/camvid', help='of CamVid (default: data/camvid)')
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    until = time.monotonic() + 60 * arguments.minutes
    experiment = Experiment(arguments.data_root)
    for cell in cells():
        if time.monotonic() > until:
            return
        if cell.key not in experiment.content['cells'] and experiment.model(cell.model) is not None:
            experiment.measure(cell)


if __name__ == '__main__':
    main()
