"""Compares forms of aligned gradients for a segmentor with plain and adversarial training, on digit scenes of 32x32.

    python benchmarks/pag_scenes.py [--seeds 0 1 2] [--methods plain regions] [--stored]

The scenes are the demo's at half size, and the network is small and without batch norms, so that a seed takes minutes.
All methods go on from one plainly trained network, for the same number of steps on the same batches. Each is measured
on the same test scenes: clean, under SEA in both norms, under the images that SEA made for the plain and for the
adversarially trained network (transfer), and by the cosine and sharpness of its gradients. Methods with a record in
benchmarks/results/pag_scenes.json do not run again. Writes the section of docs/evidence_gradients.md and
docs/images/pag_scenes.png.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from experiments import RESULTS, ROOT, mean_and_deviation, provenance, store, write_section
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from mmadv.attacks import L2, PGD, Linf
from mmadv.attacks.objectives import CrossEntropy
from mmadv.attacks.presets import preset
from mmadv.attacks.randomness import derive_seed
from mmadv.datasets.digit_scenes import draw_scene
from mmadv.models.pag_regions import RegionDistillation, RegionExemplars, Repainted, region_scores
from mmadv.models.pag_targets import BankRequest, collect_bank, collect_regions
from mmadv.robustness import (
    NearestNeighbour,
    PAGLoss,
    class_scores,
    cosine_similarity,
    count,
    high_frequency_share,
    input_gradients,
    metrics,
)

STUDY = 'pag_scenes'
SEEDS = (0, 1, 2)
CLASSES, SIDE, TRAIN, TEST = 11, 32, 4000, 48
START_STEPS, STEPS, BATCH, LEARNING_RATE = 700, 600, 8, 4e-3
RADIUS, L2_RADIUS, ITERATIONS = '6/255', '0.5', 30
WEIGHT = 0.5
PAINTING = 6.0  # the L2 radius of the picture's moves
METHODS = ('plain', 'adversarial', 'regions', 'regions, teacher', 'whole image')
# Methods whose adversarial images attack the networks of the others too.
SOURCES = ('plain', 'adversarial')
PICTURE = 'docs/images/pag_scenes.png'


class Network(nn.Module):
    """A residual encoder and decoder with group norms and SiLU, (N, 3, H, W) -> (N, 11, H, W)."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(STUDY, seed))
            self.stem = nn.Sequential(nn.Conv2d(3, 32, 5, stride=2, padding=2), nn.SiLU())
            self.fine, self.decoder = _Block(32), _Block(32)
            self.down = nn.Sequential(nn.Conv2d(32, 48, 3, stride=2, padding=1), nn.SiLU())
            self.coarse = nn.Sequential(_Block(48), _Block(48, 2), nn.Conv2d(48, 32, 1))
            self.classify = nn.Sequential(nn.SiLU(), nn.Conv2d(32, CLASSES, 1))

    def forward(self, images: Tensor) -> Tensor:
        fine = self.fine(self.stem(2 * images - 0.7))
        coarse = F.interpolate(self.coarse(self.down(fine)), scale_factor=2, mode='bilinear')
        return F.interpolate(self.classify(self.decoder(fine + coarse)), scale_factor=2, mode='bilinear')


class _Block(nn.Module):
    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        convolution = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.layers = nn.Sequential(nn.GroupNorm(4, channels), nn.SiLU(), convolution)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.layers(features)


@functools.cache
def scenes(split: str, length: int) -> tuple[Tensor, Tensor]:
    """Returns scenes of 32x32: (N, 3, 32, 32) uint8, and labels (N, 32, 32).

    A pixel stands for four of the demo's scene. It has a digit's class if at least two of them have.
    """
    images, labels = [], []
    for index in range(length):
        image, label = draw_scene(split, index)
        fourth = np.stack([label[row::2, column::2] for row in (0, 1) for column in (0, 1)])
        small = np.zeros((SIDE, SIDE), np.int64)
        for k in np.unique(label)[1:]:
            small[(fourth == k).sum(0) >= 2] = k
        images.append(cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA).transpose(2, 0, 1))
        labels.append(small)
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels))


def bank_request(per_class: int, side: int, classes: Sequence[int] = range(CLASSES)) -> BankRequest:
    """Returns what a bank of crops of the training scenes holds."""
    return BankRequest(tuple(classes), CLASSES, per_class, (side, side))


@functools.cache
def region_bank() -> Any:
    """Returns the bank of regions of the training scenes."""
    images, labels = scenes('train', TRAIN)
    pictures = ((image.permute(1, 2, 0).numpy(), label.numpy()) for image, label in zip(images, labels, strict=True))
    return collect_regions(pictures, bank_request(32, 16))


Loss = Callable[[nn.Module, Tensor, Tensor, torch.Generator], Tensor]


def plain_loss(network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Returns the cross-entropy."""
    return F.cross_entropy(network(images), labels)


def adversarial_loss(network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Returns the cross-entropy of the images under PGD with two steps at 8/255."""
    attack = PGD(threat=Linf(radius='8/255'), steps=2, step_size=6 / 255)
    seeds = torch.randint(2**31, (len(images),), generator=generator).tolist()
    return F.cross_entropy(network(attack.perturb(network, images, labels, seeds=seeds)), labels)


def region_loss(target: RegionExemplars, weight: float) -> Loss:
    """Returns the cross-entropy with the PAG loss of regions."""

    def loss(network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        repainted = target.repaint(images, labels, generator)
        directions = target.directions(images, labels, repainted)
        inputs = images.clone().requires_grad_()
        logits = network(inputs)
        scores = region_scores(logits, labels, repainted)[:, None]
        alignment = PAGLoss(weight=weight)(scores, inputs, directions[:, None])
        return F.cross_entropy(logits, labels) + alignment.loss.mean()

    return loss


def whole_image_loss(weight: float, per_step: int = 2) -> Loss:
    """Returns the cross-entropy with the published PAG loss: the nearest of eight scenes of each of two classes."""
    images, labels = scenes('train', TRAIN)
    pictures = ((image.permute(1, 2, 0).numpy(), label.numpy()) for image, label in zip(images, labels, strict=True))
    target = NearestNeighbour(collect_bank(pictures, bank_request(8, SIDE)))
    pag = PAGLoss(weight=weight, num_classes=CLASSES)

    def loss(network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        classes = torch.rand(len(images), CLASSES, generator=generator).argsort(1)[:, :per_step]
        inputs = images.clone().requires_grad_()
        logits = network(inputs)
        alignment = pag(class_scores(logits, classes, labels), inputs, target(images, classes, labels))
        return F.cross_entropy(logits, labels) + alignment.loss.mean()

    return loss


def fit(network: nn.Module, loss: Loss, seed: int, steps: int, batch: int) -> nn.Module:
    """Returns the network after training: AdamW, a linear warm-up over a tenth of the steps, and cosine decay."""
    images, labels = scenes('train', TRAIN)
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    rows, draws = (torch.Generator().manual_seed(derive_seed(STUDY, name, seed, steps)) for name in ('rows', 'draws'))
    network.train()
    for _ in range(steps):
        chosen = torch.randint(len(images), (batch,), generator=rows)
        optimizer.zero_grad()
        loss(network, images[chosen].float() / 255, labels[chosen], draws).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return network.eval()


def trained(method: str, seed: int, folder: Path) -> nn.Module:
    """Returns the trained network of a method; its weights are stored in a folder, and trained once."""
    path = folder / f'{method.replace(", ", "_").replace(" ", "_")}_{seed}.pth'
    network = Network(seed)
    if path.is_file():
        network.load_state_dict(torch.load(path, weights_only=True))
        return network.eval()
    if method == 'start':
        fit(network, plain_loss, seed, START_STEPS, 2 * BATCH)
    else:
        network.load_state_dict(trained('start', seed, folder).state_dict())
        losses: dict[str, Callable[[], Loss]] = {
            'plain': lambda: plain_loss,
            'adversarial': lambda: adversarial_loss,
            'whole image': lambda: whole_image_loss(0.3),
            'regions': lambda: region_loss(RegionExemplars(region_bank()), WEIGHT),
            'regions, teacher': lambda: region_loss(
                RegionDistillation(trained('adversarial', seed, folder), region_bank()), WEIGHT
            ),
        }
        fit(network, losses[method](), seed, STEPS, BATCH)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), path)
    return network


def measured_scenes() -> tuple[Tensor, Tensor]:
    """Returns the test scenes, in [0, 1], and their labels."""
    images, labels = scenes('val', TEST)
    return images.float() / 255, labels


def attacked(network: nn.Module, norm: str) -> Any:
    """Returns the result of SEA on the test scenes."""
    images, labels = measured_scenes()
    seeds = [derive_seed(STUDY, 'attack', index) for index in range(len(images))]
    attack = preset('sea', RADIUS if norm == 'Linf' else L2_RADIUS, ITERATIONS, norm)
    return attack(network, images, labels, seeds=seeds, ignore_index=255)


def scores_of(predictions: Tensor, labels: Tensor) -> dict[str, float]:
    """Returns the mIoU and the accuracy of predictions."""
    values = metrics(count(predictions, labels, CLASSES))
    return {key: values[key] for key in ('mIoU', 'aAcc')}


def repainted_scenes(target: RegionExemplars) -> Repainted:
    """Returns the test scenes with regions repainted, the same for all networks."""
    return target.repaint(*measured_scenes(), torch.Generator().manual_seed(derive_seed(STUDY, 'measured')))


def gradients_of(network: nn.Module) -> tuple[Tensor, Tensor]:
    """Returns the gradients of the scores of repainted test scenes, and their targets x' - x, (N, 3, 32, 32) each."""
    images, labels = measured_scenes()
    target = RegionExemplars(region_bank())
    repainted = repainted_scenes(target)
    inputs = images.clone().requires_grad_()
    gradients = input_gradients(region_scores(network(inputs), labels, repainted)[:, None], inputs)[:, 0]
    return gradients, target.directions(images, labels, repainted)


def evaluate(network: nn.Module, transferred: Sequence[Tensor]) -> tuple[dict[str, Any], Tensor]:
    """Returns all measures of a network, and the adversarial images that SEA made for it in L∞.

    Args:
        network: the network.
        transferred: adversarial images of other networks, which attack this one too.
    """
    images, labels = measured_scenes()
    with torch.no_grad():
        record: dict[str, Any] = {'clean': scores_of(network(images).argmax(1), labels)}
        others = [scores_of(network(one).argmax(1), labels)['mIoU'] for one in transferred]
    results = {norm: attacked(network, norm) for norm in ('Linf', 'L2')}
    record |= {norm: scores_of(result.predictions, labels) for norm, result in results.items()}
    record['transfer'] = min(others, default=None)
    gradients, directions = gradients_of(network)
    found = directions.flatten(1).any(1)
    cosines = cosine_similarity(gradients[:, None], directions[:, None])[found]
    record['cosine'], record['sharpness'] = float(cosines.mean()), float(high_frequency_share(gradients[found]).mean())
    return record, results['Linf'].images


def draw_picture(networks: dict[str, nn.Module], path: Path) -> None:
    """Writes the picture: of four test scenes, each network's gradient, and the scene moved to the repainted labels.

    The moves are targeted attacks of large radius, whose labels are those of the repainted scenes.
    """
    (images, _), repainted = measured_scenes(), repainted_scenes(RegionExemplars(region_bank()))
    rows = slice(0, 4)
    columns = {'scene': images[rows], 'repainted': repainted.images[rows]}
    goal = CrossEntropy(targeted=True)
    attack = PGD(threat=L2(radius=PAINTING), steps=40, step_size=PAINTING / 10, objective=goal)
    for name, network in networks.items():
        columns[f'{name}:\ngradient'] = _grey(gradients_of(network)[0][rows])
        moved = attack(network, images[rows], repainted.labels[rows], seeds=range(4), ignore_index=255)
        columns[f'{name}:\nmoved'] = moved.images
    figure = Figure(figsize=(1.25 * len(columns), 5.5), layout='constrained')
    grid = figure.subplots(4, len(columns))
    for column, (title, pictures) in enumerate(columns.items()):
        for row, picture in enumerate(pictures):
            grid[row, column].imshow(picture.flip(0).permute(1, 2, 0).clamp(0, 1).numpy(), interpolation='nearest')
            grid[row, column].set(xticks=[], yticks=[])
        grid[0, column].set_title(title, fontsize=8)
    figure.savefig(path, dpi=80)


def _grey(gradients: Tensor) -> Tensor:
    """Returns gradients around mid-grey, each scaled by its own 99th percentile."""
    scale = gradients.abs().flatten(1).quantile(0.99, 1).clamp_min(1e-12)
    return (0.5 + 0.5 * gradients / scale[:, None, None, None]).clamp(0, 1)


def table(records: Sequence[dict[str, Any]]) -> str:
    """Returns the Markdown table, means and standard deviations over the seeds."""

    def cell(group: Sequence[dict[str, Any]], value: Callable[[dict[str, Any]], float], digits: int) -> str:
        mean, deviation = mean_and_deviation([value(record) for record in group])
        return f'{mean:.{digits}f}' + (f' ± {deviation:.{digits}f}' if len(group) > 1 else '')

    lines = [
        f'| training | clean mIoU | SEA {RADIUS} | SEA L2 {L2_RADIUS} | transfer | cosine | sharpness | s | seeds |',
        '|---|' + '---:|' * 8,
    ]
    for method in METHODS:
        group = [record for record in records if record['method'] == method]
        if not group:
            continue
        cells = [cell(group, lambda record, key=key: 100 * record[key]['mIoU'], 1) for key in ('clean', 'Linf', 'L2')]
        known = all(record['transfer'] is not None for record in group)
        cells.append(cell(group, lambda record: 100 * record['transfer'], 1) if known else '-')
        cells += [cell(group, lambda record, key=key: record[key], 2) for key in ('cosine', 'sharpness')]
        cells += [f'{mean_and_deviation([record["seconds"] for record in group])[0]:.0f}', str(len(group))]
        lines.append(f'| {method} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def measure(seeds: Sequence[int], methods: Sequence[str], records: list[dict[str, Any]], folder: Path) -> None:
    """Trains and measures all methods that have no record, and stores each record."""
    for seed in seeds:
        made: dict[str, Tensor] = {}
        for method in methods:
            if any((record['method'], record['seed']) == (method, seed) for record in records):
                continue
            trained('start', seed, folder)
            if method not in SOURCES:  # which the teacher is one of
                for name in SOURCES:
                    if name not in made:
                        made[name] = attacked(trained(name, seed, folder), 'Linf').images
            begin = time.process_time()
            network = trained(method, seed, folder)
            record = {'method': method, 'seed': seed, 'seconds': round(time.process_time() - begin, 1)}
            transferred = [made[name] for name in SOURCES] if method not in SOURCES else []
            measures, images = evaluate(network, transferred)
            if method in SOURCES:
                made[method] = images
            records.append({**record, 'date': datetime.date.today().isoformat(), **measures})
            print(json.dumps(records[-1]), flush=True)
            store(STUDY, records)


def main() -> None:
    """Runs what has not run yet, and writes the section."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seeds', type=int, nargs='+', default=SEEDS)
    parser.add_argument('--methods', nargs='+', default=METHODS, choices=METHODS)
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/pag_scenes'))
    parser.add_argument('--stored', action='store_true', help='run nothing; write the table of what has run')
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    file = RESULTS / f'{STUDY}.json'
    records = json.loads(file.read_text(encoding='utf-8'))['records'] if file.is_file() else []
    if not arguments.stored:
        measure(arguments.seeds, arguments.methods, records, arguments.work_dir)
        pictured = ('plain', 'regions', 'regions, teacher')
        draw_picture({name: trained(name, SEEDS[0], arguments.work_dir) for name in pictured}, ROOT / PICTURE)
    content = json.loads(file.read_text(encoding='utf-8'))
    text = (
        f'{table(content["records"])}\n\nmIoU in percent, {TEST} scenes, mean ± standard deviation over the seeds '
        f'of the training. SEA takes {ITERATIONS} iterations of each of four losses. s: processor time '
        f'of {STEPS} steps. {provenance(content)}\n\n'
        f'![Gradients, and scenes moved to other labels](images/{Path(PICTURE).name})\n\n'
        f'Four test scenes and networks of seed {SEEDS[0]}. A move is a targeted attack in an L2 ball of {PAINTING:g}, '
        'towards the label map of the repainted scene.\n\n'
        f'```bash\npython benchmarks/pag_scenes.py\n```'
    )
    write_section(ROOT / 'docs/evidence_gradients.md', 'benchmarks/pag_scenes.py', text)
    print(text)


if __name__ == '__main__':
    main()
