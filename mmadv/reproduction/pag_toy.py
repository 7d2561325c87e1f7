"""The toy experiment of the PAG paper (section 5.1, figure 3, appendix C.1): two classes on a line in the plane.

All seeds are trained at once. A ``PointNetworks`` holds one network per seed. Every seed has its own data, batches and
random numbers, which are the same for both ways of training.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmadv.attacks import L2, PGD
from mmadv.attacks.checks import finite
from mmadv.attacks.randomness import derive_seed
from mmadv.fields import Filled, Positive, PositiveNumber, Seed, checked, checked_exactly
from mmadv.robustness import NearestNeighbour, PAGLoss, draw_bank
from mmadv.shapes import Shaped

# Appendix C.1.
CENTRES = ((-50.0, -10.0, 30.0), (-30.0, 10.0, 50.0))
TRAIN_PER_MODE, TEST_PER_MODE = 1000, 100
HIDDEN, EPOCHS, BATCH, LEARNING_RATE = 32, 100, 128, 0.01
RADIUS, STEP_SIZE, STEPS = 15.0, 2.0, 10
PAPER = {'standard training': 0.0, 'aligned gradients': 75.5}
# The attacks take images in [0, 1]. A point x becomes the image (x + SPAN / 2) / SPAN, far from 0 and 1.
SPAN = 512.0
SomeSeeds = Annotated[Sequence[Seed], Filled()]
Points = Annotated[Tensor, Shaped('N 2', ('float32',), finite)]
PointClasses = Annotated[Tensor, Shaped('N', ('int64',))]


@checked_exactly
@dataclass(frozen=True, kw_only=True)
class Setting:
    """The settings that the paper does not state, and the length of the training.

    Attributes:
        weight: λ of the PAG loss.
        per_class: size of the random bank of each class; the nearest neighbour comes from this bank.
        epochs: number of epochs of both trainings.
    """

    weight: PositiveNumber = 1.0
    per_class: Positive = 10
    epochs: Positive = EPOCHS


@checked_exactly
class PointNetworks(nn.Module):
    """One 2 -> 32 -> 2 network with ReLU per seed, (S, N, 2) -> (S, N, 2), initialised as ``nn.Linear`` is.

    Args:
        seeds: one seed per network.
    """

    first_weight: nn.Parameter
    first_bias: nn.Parameter
    second_weight: nn.Parameter
    second_bias: nn.Parameter

    def __init__(self, seeds: SomeSeeds) -> None:
        super().__init__()
        layers = []
        for seed in seeds:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derive_seed('pag toy network', seed))
                layers.append((nn.Linear(2, HIDDEN), nn.Linear(HIDDEN, 2)))
        for name, index in (('first', 0), ('second', 1)):
            weight = torch.stack([layer[index].weight.detach().T for layer in layers])
            bias = torch.stack([layer[index].bias.detach()[None] for layer in layers])
            self.register_parameter(f'{name}_weight', nn.Parameter(weight))
            self.register_parameter(f'{name}_bias', nn.Parameter(bias))

    @checked
    def forward(self, points: Annotated[Tensor, Shaped('S N 2', ('float32',))]) -> Tensor:
        hidden = torch.relu(torch.baddbmm(self.first_bias, points, self.first_weight))
        return torch.baddbmm(self.second_bias, hidden, self.second_weight)

    def of_seed(self, index: int) -> Callable[[Tensor], Tensor]:
        """Returns the network of one seed, (N, 2) -> (N, 2)."""
        first, first_bias = self.first_weight[index].detach(), self.first_bias[index].detach()
        second, second_bias = self.second_weight[index].detach(), self.second_bias[index].detach()
        return lambda points: torch.relu(points @ first + first_bias) @ second + second_bias


@checked
def draw_points(seed: Seed, split: Literal['train', 'test']) -> tuple[Tensor, Tensor]:
    """Returns the points (N, 2) and classes (N,) of a split: x₁ ~ N(centre, 1), x₂ = 2 x₁, in each of six modes."""
    per_mode = {'train': TRAIN_PER_MODE, 'test': TEST_PER_MODE}[split]
    generator = torch.Generator().manual_seed(derive_seed('pag toy', split, seed))
    centres = torch.tensor(CENTRES).flatten().repeat_interleave(per_mode)
    classes = torch.arange(2).repeat_interleave(3 * per_mode)
    abscissa = centres + torch.randn(len(centres), generator=generator)
    return torch.stack([abscissa, 2 * abscissa], 1), classes


@checked
def train(seeds: SomeSeeds, setting: Setting, *, aligned: bool) -> PointNetworks:
    """Returns the trained networks: Adam on the cross-entropy, with the PAG loss added if ``aligned``.

    Args:
        seeds: one seed per network. A seed's network, data and batches are the same in both ways of training.
        setting: weight and bank of the PAG loss.
        aligned: whether to add the PAG loss, with nearest neighbours as targets.
    """
    data = [draw_points(seed, 'train') for seed in seeds]
    points, classes = (torch.stack(part) for part in zip(*data, strict=True))
    directions = _directions(seeds, points, classes, setting) if aligned else None
    networks = PointNetworks(seeds)
    optimizer = torch.optim.Adam(networks.parameters(), lr=LEARNING_RATE)
    loss = PAGLoss(weight=setting.weight)
    generators = [torch.Generator().manual_seed(derive_seed('pag toy batches', seed)) for seed in seeds]
    rows = torch.arange(len(seeds))[:, None]
    for _ in range(setting.epochs):
        order = torch.stack([torch.randperm(points.shape[1], generator=generator) for generator in generators])
        for batch in order.split(BATCH, dim=1):
            inputs = points[rows, batch].flatten(0, 1).requires_grad_(aligned)
            scores = networks(inputs.unflatten(0, batch.shape)).flatten(0, 1)
            total = F.cross_entropy(scores, classes[rows, batch].flatten())
            if directions is not None:
                total = total + loss(scores, inputs, directions[rows, batch].flatten(0, 1)).loss.mean()
            # The loss is a mean per seed, summed over seeds, so no seed influences another.
            total = len(seeds) * total
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            optimizer.step()
    return networks


@checked
def accuracies(network: Callable[[Tensor], Tensor], points: Points, classes: PointClasses) -> dict[str, float]:
    """Returns one network's clean accuracy and its accuracy under L2 PGD from the clean points, in percent."""
    model = _as_segmentor(network)
    images, labels = ((points + SPAN / 2) / SPAN).double()[:, None, None], classes[:, None, None]
    attack = PGD(
        threat=L2(radius=RADIUS / SPAN), steps=STEPS, step_size=STEP_SIZE / SPAN, random_start=False, keep='last'
    )
    clean = (model(images).argmax(1) == labels).double().mean()
    attacked = attack(model, images, labels).accuracy.mean()
    return {'clean': 100 * float(clean), 'attacked': 100 * float(attacked)}


@checked
def run(seeds: SomeSeeds, setting: Setting) -> tuple[dict[str, Any], dict[str, PointNetworks]]:
    """Returns the results of the experiment, fit for JSON, and the networks of both ways of training."""
    results: dict[str, Any] = {'seeds': list(seeds), 'setting': vars(setting), 'paper': PAPER, 'models': {}}
    trained = {}
    for name, aligned in (('standard training', False), ('aligned gradients', True)):
        start = time.perf_counter()
        trained[name] = train(seeds, setting, aligned=aligned)
        seconds = time.perf_counter() - start
        rows = [
            accuracies(trained[name].of_seed(index), *draw_points(seed, 'test')) for index, seed in enumerate(seeds)
        ]
        results['models'][name] = {'seconds': round(seconds, 2), **_columns(rows)}
    return results, trained


def table(results: dict[str, Any]) -> str:
    """Returns the results as text: a line per seed, means with standard deviations, and the paper's numbers."""
    names = list(results['models'])
    lines = [' '.join(['seed   ', *(f'{name}: clean, attacked'.rjust(34) for name in names)])]
    for index, seed in enumerate(results['seeds']):
        cells = [
            f'{model["clean"][index]:6.1f} % {model["attacked"][index]:6.1f} %' for model in results['models'].values()
        ]
        lines.append(' '.join([f'{seed:<7}', *(cell.rjust(34) for cell in cells)]))
    cells = []
    for model in results['models'].values():
        parts = [f'{_mean(model[key]):5.1f} ± {_deviation(model[key]):4.1f} %' for key in ('clean', 'attacked')]
        cells.append('  '.join(parts))
    lines.append(' '.join(['mean   ', *(cell.rjust(34) for cell in cells)]))
    lines.append(' '.join(['paper  ', *(f'100.0 % {results["paper"][name]:6.1f} %'.rjust(34) for name in names)]))
    return '\n'.join(lines)


def _directions(seeds: Sequence[int], points: Tensor, classes: Tensor, setting: Setting) -> Tensor:
    """Returns g(x, t) for every training point and both classes, (S, N, 2, 2), computed once as in appendix C.2."""
    targets = []
    for seed, own, labels in zip(seeds, points, classes, strict=True):
        bank = draw_bank(
            own, labels, num_classes=2, per_class=setting.per_class, seed=derive_seed('pag toy bank', seed)
        )
        targets.append(NearestNeighbour(bank)(own, torch.arange(2).expand(len(own), 2)))
    return torch.stack(targets)


def _as_segmentor(network: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def model(images: Tensor) -> Tensor:
        points = images.flatten(1) * SPAN - SPAN / 2
        return network(points.float()).double()[:, :, None, None]

    return model


def _columns(rows: Sequence[dict[str, float]]) -> dict[str, list[float]]:
    return {key: [round(row[key], 4) for row in rows] for key in rows[0]}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _deviation(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1))
