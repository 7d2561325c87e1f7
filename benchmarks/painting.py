"""Paints with the gradients of ESPNet on CamVid: after standard training, with noise, and adversarially.

    python projects/espnet/convert.py WEIGHTS.pth work_dirs/espnet/espnet_camvid.pth
    python benchmarks/painting.py --workers 2

Three models start from the weights that ESPNet's authors publish and train equally long at 240x180 (configs in
benchmarks/configs/espnet). Each paints what ``mmadv synthesize`` paints: images moved towards a class, images of a
class, images from their labels, and a box of an image. Images and classes follow from a rule, nobody chooses them.
The study stops unless standard training is accurate and not robust, and adversarial training robust.

A training or an attack that has ended does not run again. ``--stored`` runs nothing, and writes the section of
docs/gallery.md from benchmarks/results/painting.json; the pictures are written by the run alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from curves import load_tested, under_auto
from experiments import RESULTS, ROOT, Run, Stage, run, store
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from mmseg.utils import register_all_modules
from painting_report import draw, publish
from torch import Tensor, nn
from training_record import train_recorded

from mmadv.attacks import L2
from mmadv.checkpoints.loading import file_sha256
from mmadv.commands.synthesis_batches import seeds_of_class
from mmadv.engine.data import Selection, build_dataset, evenly_spaced
from mmadv.models import SegmentorAdapter, stack_images, stack_labels
from mmadv.robustness import SmoothedModel
from mmadv.synthesis import Descent, corrupt, generate, inpaint, move_to_class, psnr, ssim

CONFIGS = 'benchmarks/configs/espnet'
# Name -> config, and standard deviation of the noise that smooths the model. The one with noise trains with it.
MODELS: dict[str, tuple[str, float | None]] = {
    'standard': ('standard_240x180', None),
    'noise, smoothed': ('gaussian_240x180', 0.25),
    'adversarial': ('pgd_3_l2_240x180', None),
}
ITERATIONS = 2000
NOISE_DRAWS = 4
# The classes of large regions.
CLASSES = ('road', 'sky', 'tree', 'building')
# Images of the numbers, spread evenly over the validation images, and the first of them, which the sheets show.
IMAGES, SHOWN = 20, 3
SEEDS = 3
TARGET = Descent(steps=60, step_size=2.0, threat=L2(radius=40))
PAINT = Descent(steps=100, step_size=1.0)
PENALTY = 0.02
BOX = (60, 80, 60, 80)  # top, left, height, width: the middle ninth
BUDGETS = (('Linf', '2/255'), ('L2', '2'))
ATTACKED = 8
# Standard training is accurate if its clean mIoU is at least the floor, and not robust if less than half of it is left
# at each budget; adversarial training is robust if it keeps twice as much as standard training.
FLOOR, FLOOR_SHARE, FLOOR_FACTOR = 0.45, 0.5, 2.0


@dataclass
class Painter:
    """A model that paints.

    Attributes:
        segmentor: of mmseg, in eval mode.
        sigma: standard deviation of the noise that smooths it; None does not.
    """

    segmentor: nn.Module
    sigma: float | None

    def model(self, samples: Sequence[Any], output: str) -> nn.Module:
        """Returns the model of the images of some samples, (N, 3, h, w) in [0, 1] -> logits (N, K, h, w)."""
        adapter = SegmentorAdapter(self.segmentor, samples)
        if self.sigma is None:
            return adapter
        return SmoothedModel(adapter, sigma=self.sigma, samples=NOISE_DRAWS, output=output)

    def predict(self, samples: Sequence[Any], images: Tensor) -> Tensor:
        """Returns the classes (N, h, w) that the model predicts, without smoothing."""
        with torch.no_grad():
            return SegmentorAdapter(self.segmentor, samples)(images).argmax(1)


@dataclass
class Scenes:
    """Validation images, evenly spread.

    Attributes:
        samples: of mmseg.
        images: (N, 3, h, w) in [0, 1].
        labels: (N, h, w).
        names: of the images.
        classes: names of the classes of the labels.
    """

    samples: list[Any]
    images: Tensor
    labels: Tensor
    names: list[str]
    classes: list[str]

    @classmethod
    def of(cls, dataset: Any, number: int) -> Scenes:
        """Returns some images of a dataset."""
        batch = pseudo_collate(list(Selection(dataset, evenly_spaced(len(dataset), number))))
        samples = batch['data_samples']
        names = [Path(sample.metainfo['image_name']).stem for sample in samples]
        images, labels = stack_images(batch['inputs']), stack_labels(samples)
        return cls(samples, images, labels, names, list(dataset.metainfo['classes']))

    def first(self, number: int) -> Scenes:
        """Returns the first images."""
        cut = slice(number)
        return Scenes(self.samples[cut], self.images[cut], self.labels[cut], self.names[cut], self.classes)


def plan(work_dir: Path) -> list[Run]:
    """Returns a training and an attack for each model."""
    runs = []
    for name, (config, _) in MODELS.items():
        folder = work_dir / config
        options = (f'default_hooks.checkpoint.interval={ITERATIONS // 8}', 'train_dataloader.num_workers=1')
        train = ('train', f'{CONFIGS}/{config}.py', '--work-dir', str(folder), '--cfg-options', *options)
        attack = ('attack', f'{CONFIGS}/{config}.py', str(weights_of(work_dir, name)), str(folder / 'robustness.json'))
        stages = (Stage(train, folder / 'training.json'), Stage(attack, folder / 'robustness.json'))
        runs.append(Run(config, stages, {'model': name}))
    return runs


def weights_of(work_dir: Path, name: str) -> Path:
    """Returns the checkpoint that the training of a model ends with."""
    return work_dir / MODELS[name][0] / f'iter_{ITERATIONS}.pth'


def attack(arguments: Sequence[str]) -> None:
    """Writes the clean numbers on all validation images, and those on some of them: clean, and under `auto`.

    Args:
        arguments: config, weights, file to write.
    """
    config, weights, out = arguments
    register_all_modules()
    segmentor, dataset = load_tested(ROOT / config, weights)
    segmentor.to(memory_format=torch.channels_last)
    content = {**under_auto(segmentor, dataset, BUDGETS, ATTACKED), 'sha256': file_sha256(weights)}
    Path(out).write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')


def check_floor(models: Mapping[str, Any]) -> None:
    """Raises SystemExit unless standard training is accurate and not robust, and adversarial training robust."""
    standard, adversarial = models['standard'], models['adversarial']
    clean = standard['numbers']['none']['mIoU']
    if clean < FLOOR:
        raise SystemExit(f'error: standard training has a clean mIoU of {100 * clean:.1f} %, below {100 * FLOOR:.0f} %')
    for threat, radius in BUDGETS:
        left, robust = (one['numbers'][f'{threat} {radius}']['mIoU'] for one in (standard, adversarial))
        if left >= FLOOR_SHARE * clean or robust < FLOOR_FACTOR * left:
            raise SystemExit(
                f'error: at {threat} {radius} standard training keeps {100 * left:.1f} of {100 * clean:.1f} % mIoU '
                f'and adversarial training {100 * robust:.1f} %: their pictures would not differ'
            )


def move(painter: Painter, scenes: Scenes, start: Tensor, name: str) -> Tensor:
    """Returns images (N, 3, h, w) moved towards a class everywhere."""
    classes = torch.full((len(start),), scenes.classes.index(name))
    samples = [scenes.samples[0]] * len(start)
    return move_to_class(painter.model(samples, 'mean_logits'), start, classes, descent=TARGET)


def recognised(painters: Mapping[str, Painter], scenes: Scenes, pictures: Tensor, name: str) -> dict[str, float]:
    """Returns the share of pixels that each model, not smoothed, predicts as a class."""
    samples = [scenes.samples[0]] * len(pictures)
    k = scenes.classes.index(name)
    return {
        judge: round(float((one.predict(samples, pictures) == k).float().mean()), 4) for judge, one in painters.items()
    }


def paint_classes(painters: Mapping[str, Painter], scenes: Scenes, training: Any) -> dict[str, Any]:
    """Paints towards each class from images and from seeds of the class, and draws both sheets.

    Returns:
        Sheet -> painter -> class -> judge -> share of pixels.
    """
    size = (scenes.images.shape[2], scenes.images.shape[3])
    shown = scenes.first(SHOWN)
    starts = {
        'target': dict.fromkeys(CLASSES, shown.images),
        'class': {
            name: seeds_of_class(training, scenes.classes.index(name), scenes.classes, size, count=SEEDS, seed=0)[0]
            for name in CLASSES
        },
    }
    shares: dict[str, Any] = {}
    for sheet, start in starts.items():
        shares[sheet] = {'start': {name: recognised(painters, scenes, start[name], name) for name in CLASSES}}
        columns = {'start': [start[name][0] for name in CLASSES]}
        for title, painter in painters.items():
            painted = {name: move(painter, scenes, start[name], name) for name in CLASSES}
            shares[sheet][title] = {name: recognised(painters, scenes, painted[name], name) for name in CLASSES}
            columns[title] = [painted[name][0] for name in CLASSES]
            print(f'{sheet}, {title}: {shares[sheet][title]}', flush=True)
        draw(columns, CLASSES, sheet)
    return shares


def paint_labels(painters: Mapping[str, Painter], scenes: Scenes) -> None:
    """Paints whole images from their labels and mean colours, and draws the sheet."""
    shown = scenes.first(SHOWN)
    columns = {'original': shown.images}
    for title, painter in painters.items():
        means, size = shown.images.mean((2, 3)), (shown.images.shape[2], shown.images.shape[3])
        columns[title] = generate(painter.model(shown.samples, 'soft'), means, shown.labels, size, descent=PAINT)
    draw(columns, shown.names, 'labels')


def paint_box(painters: Mapping[str, Painter], scenes: Scenes) -> dict[str, dict[str, list[float]]]:
    """Paints a box of each image, draws the sheet of the first ones, and returns painter -> measure -> values."""
    top, left, height, width = BOX
    mask = torch.zeros((len(scenes.images), 1, *scenes.images.shape[2:]), dtype=torch.bool)
    mask[:, :, top : top + height, left : left + width] = True
    start = corrupt(scenes.images, mask)
    pictures = {'start': start}
    for title, painter in painters.items():
        model = painter.model(scenes.samples, 'soft')
        pictures[title] = inpaint(model, scenes.images, scenes.labels, mask, descent=PAINT, penalty=PENALTY)
    measures = {'PSNR': psnr, 'SSIM': ssim}
    quality = {
        title: {
            name: [round(float(v), 4) for v in measure(images, scenes.images, mask)]
            for name, measure in measures.items()
        }
        for title, images in pictures.items()
    }
    print(
        json.dumps({title: {name: sum(v) / len(v) for name, v in one.items()} for title, one in quality.items()}),
        flush=True,
    )
    columns = {'original': scenes.images[:SHOWN]} | {title: images[:SHOWN] for title, images in pictures.items()}
    draw(columns, scenes.names[:SHOWN], 'box', quality)
    return quality


def measure(work_dir: Path) -> dict[str, Any]:
    """Returns what the models keep under attack, and what they painted."""
    models, painters = {}, {}
    for item in plan(work_dir):
        name, path = item.facts['model'], item.stages[-1].done
        _, config, weights, _ = item.stages[-1].command
        models[name] = json.loads(path.read_text(encoding='utf-8'))
        if models[name]['sha256'] != file_sha256(weights):
            raise SystemExit(f'error: {path} is of other weights than {weights}; delete it')
        segmentor, dataset = load_tested(ROOT / config, weights)
        painters[name] = Painter(segmentor.to(memory_format=torch.channels_last), MODELS[name][1])
    check_floor(models)
    standard = f'{CONFIGS}/{MODELS["standard"][0]}.py'
    with DefaultScope.overwrite_default_scope('mmseg'):
        training = build_dataset(Config.fromfile(ROOT / standard).train_dataloader.dataset, 'train_dataloader.dataset')
    scenes = Scenes.of(dataset, IMAGES)
    shares = paint_classes(painters, scenes, training)
    paint_labels(painters, scenes)
    return {'models': models, 'images': scenes.names, 'recognised': shares, 'box': paint_box(painters, scenes)}


def main() -> None:
    """Trains what has not been trained, paints, and writes results, sheets and section."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/painting'))
    parser.add_argument('--workers', type=int, default=1, help='models that train at a time, one thread each')
    parser.add_argument('--stored', action='store_true', help='run nothing; write the section of what has run')
    arguments = parser.parse_args()
    if not arguments.stored:
        sys.path.insert(0, str(ROOT / 'projects/espnet'))  # whose package the configs import
        work_dir = arguments.work_dir.resolve()
        run(plan(work_dir), work_dir / 'logs', arguments.workers, {'train': train_recorded, 'attack': attack})
        torch.set_num_threads(1)
        register_all_modules()
        store('painting', [measure(work_dir)])
    publish(json.loads((RESULTS / 'painting.json').read_text(encoding='utf-8')), ROOT / 'docs/gallery.md')


if __name__ == '__main__':
    main()
