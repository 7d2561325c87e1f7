"""Measures how many pixels above the proven optimum each attack ends, on models that are small enough for a proof.

    python benchmarks/exact_optimum.py [--stored]

Scenes have three classes, each a region of a colour, under noise. Four families of segmentors train on them:

- pixels: one linear layer, each pixel by itself. The optimum of each pixel is independent of the others.
- linear: one convolution of 5x5. Pixels of different labels share inputs and want them moved to different sides.
- hidden: a convolution, ReLU, a convolution.
- coarse: a convolution of stride 2, ReLU, a convolution, and bilinear upsampling, so that pixels move together.

Each family has three models and a radius for each. Of each model the first seven images count whose optimum lies
strictly between zero and the clean number of right pixels. ``exact_program.fewest_right`` solves each of them to proven
optimality. The study ends with an error if an attack gets below an optimum. Writes
benchmarks/results/exact_optimum.json, and the section of docs/evidence_attacks.md; ``--stored`` runs nothing and
writes it from the stored records.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from exact_optimum_report import publish
from exact_program import NotProven, Optimum, Segmentor, fewest_right
from experiments import RESULTS, ROOT, store
from torch import Tensor, nn

from mmadv.attacks import (
    APGD,
    PGD,
    Attack,
    CosPGD,
    CrossEntropy,
    FurthestClass,
    Linf,
    SegPGD,
    Square,
    ama,
    auto,
    derive_seed,
    preset,
    sea,
)

CLASSES, NOISE, BATCH, ITERATIONS = 3, 0.15, 32, 300
# Red, green and blue of each class.
COLOURS = ((0.35, 0.5, 0.6), (0.6, 0.35, 0.5), (0.5, 0.6, 0.35))
SEEDS, IMAGES, MOST_IMAGES = (0, 1, 2), 7, 21


@dataclass(frozen=True)
class Family:
    """Models of one form.

    Attributes:
        size: height and width of the images.
        radii: of the models, by seed.
        build: makes a model.
    """

    size: int
    radii: tuple[float, ...]
    build: Callable[[], Segmentor]


def coarse() -> Segmentor:
    """Returns a model whose logits are half as large as the image before they are upsampled."""
    head = nn.Sequential(nn.Conv2d(4, CLASSES, 3, padding=1), nn.Upsample(scale_factor=2, mode='bilinear'))
    return Segmentor(nn.Conv2d(3, 4, 4, stride=2, padding=1), head)


FAMILIES = {
    'pixels': Family(8, (0.04, 0.05, 0.06), lambda: Segmentor(nn.Conv2d(3, CLASSES, 1))),
    'linear': Family(8, (0.04, 0.05, 0.06), lambda: Segmentor(nn.Conv2d(3, CLASSES, 5, padding=2))),
    'hidden': Family(
        5,
        (0.04, 0.05, 0.06),
        lambda: Segmentor(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, CLASSES, 3, padding=1)),
    ),
    'coarse': Family(6, (0.03, 0.035, 0.04), coarse),
}
# Every attack by the gradients that it takes for each image in all; Square takes forward passes alone.
ATTACKS: dict[str, Callable[[float, int], Attack]] = {
    'PGD': lambda radius, count: PGD(threat=Linf(radius=radius), steps=count, keep='lowest_accuracy'),
    'SegPGD': lambda radius, count: SegPGD(threat=Linf(radius=radius), steps=count, keep='lowest_accuracy'),
    'CosPGD': lambda radius, count: CosPGD(threat=Linf(radius=radius), steps=count, keep='lowest_accuracy'),
    'APGD, cross-entropy': lambda radius, count: APGD(
        threat=Linf(radius=radius), steps=count, objective=CrossEntropy()
    ),
    'TsallisPGD': lambda radius, count: preset('tsallis', radius, count),
    'SEA': lambda radius, count: sea(radius, count // 4),
    'SEA, later version': lambda radius, count: sea(radius, count // 3, 'eccv-image'),
    'AMA towards the furthest class': lambda radius, count: FurthestClass(attack=ama(radius, count, 'masked')),
    'AMA': ama,
    'auto': auto,
    'Square': lambda radius, count: Square(threat=Linf(radius=radius), steps=count),
}
BUDGETS = (100, 400, 1200)
# The largest number is that of SEA as published; the others of these four are to compare with it.
LONGEST = ('SEA', 'SEA, later version', 'AMA', 'auto')


def scenes(count: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Returns images (N, 3, H, W) float64 in [0, 1], and labels (N, H, W)."""
    heights = torch.randn(count, CLASSES, size + 2, size + 2, generator=generator, dtype=torch.float64)
    labels = F.avg_pool2d(heights, 3, 1).argmax(1)
    colours = torch.tensor(COLOURS, dtype=torch.float64)[labels].permute(0, 3, 1, 2)
    noise = torch.randn(colours.shape, generator=generator, dtype=torch.float64)
    return (colours + NOISE * noise).clamp(0, 1), labels


def trained(family: Family, seed: int, iterations: int = ITERATIONS) -> Segmentor:
    """Returns a model after training on scenes, in float64."""
    generator = torch.Generator().manual_seed(derive_seed(seed, 'training'))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = family.build().double()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(iterations):
        images, labels = scenes(BATCH, family.size, generator)
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


@dataclass(frozen=True)
class Instances:
    """Images of one model with their optima.

    Attributes:
        family: name of the family.
        seed: of the model.
        radius: of the ball.
        model: the model.
        images: (N, 3, H, W).
        labels: (N, H, W).
        clean: right pixels of each image without attack.
        optima: of each image.
        seconds: processor time of each proof.
        unproven: images on which the solver ran out of time, which do not count.
    """

    family: str
    seed: int
    radius: float
    model: Segmentor
    images: Tensor
    labels: Tensor
    clean: list[int]
    optima: list[Optimum]
    seconds: list[float]
    unproven: int


def solved(name: str, seed: int, wanted: int = IMAGES) -> Instances:
    """Returns the first images of a model whose optimum lies strictly between zero and the clean number."""
    family = FAMILIES[name]
    radius, model = family.radii[seed], trained(family, seed)
    generator = torch.Generator().manual_seed(derive_seed(seed, 'test'))
    images, labels = scenes(MOST_IMAGES, family.size, generator)
    clean = (model(images).argmax(1) == labels).flatten(1).sum(1).tolist()
    chosen, optima, seconds, unproven = [], [], [], 0
    for index in range(MOST_IMAGES):
        start = time.process_time()
        try:
            optimum = fewest_right(model, images[index], labels[index], radius)
        except NotProven as error:
            print(f'{name}, seed {seed}, image {index}: {error}', flush=True)
            unproven += 1
            continue
        if 0 < optimum.right < clean[index]:
            chosen.append(index)
            optima.append(optimum)
            seconds.append(round(time.process_time() - start, 1))
            print(f'{name}, seed {seed}: {clean[index]} right, at best {optimum.right}, {seconds[-1]} s', flush=True)
        if len(chosen) == wanted:
            break
    return Instances(
        name, seed, radius, model, images[chosen], labels[chosen], [clean[i] for i in chosen], optima, seconds, unproven
    )


def right_after(instances: Instances, attack: Attack) -> list[int]:
    """Returns the right pixels of each image under an attack.

    Raises:
        AssertionError: the attack gets below an optimum.
    """
    seeds = [derive_seed(instances.seed, index) for index in range(len(instances.images))]
    result = attack(instances.model, instances.images, instances.labels, seeds=seeds)
    right = (result.predictions == instances.labels).flatten(1).sum(1).tolist()
    for image, (count, optimum) in enumerate(zip(right, instances.optima, strict=True)):
        assert count >= optimum.right, (
            f'{instances.family}, seed {instances.seed}, image {image}: {attack.title} leaves {count} pixels right, '
            f'below the optimum of {optimum.right}'
        )
    return right


def measured(instances: Instances) -> dict[str, Any]:
    """Returns the record of a model: its optima, and what each attack leaves with each number of gradients."""
    start = time.process_time()
    left = {
        name: {
            str(count): right_after(instances, make(instances.radius, count))
            for count in BUDGETS
            if count != max(BUDGETS) or name in LONGEST
        }
        for name, make in ATTACKS.items()
    }
    return {
        'family': instances.family,
        'seed': instances.seed,
        'radius': instances.radius,
        'pixels': instances.labels[0].numel(),
        'clean': instances.clean,
        'optimum': [optimum.right for optimum in instances.optima],
        'seconds_of_proof': instances.seconds,
        'unproven': instances.unproven,
        'left': left,
        'seconds_of_attacks': round(time.process_time() - start, 1),
    }


def main() -> None:
    """Measures all families, or takes what is stored, and writes the section."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--stored', action='store_true', help='measure nothing; write the section from what is stored')
    if not parser.parse_args().stored:
        torch.set_num_threads(1)
        records = [measured(solved(name, seed)) for name in FAMILIES for seed in SEEDS]
        store('exact_optimum', records, seeds=list(SEEDS), iterations=ITERATIONS)
    publish(json.loads((RESULTS / 'exact_optimum.json').read_text(encoding='utf-8')), ROOT)


if __name__ == '__main__':
    main()
