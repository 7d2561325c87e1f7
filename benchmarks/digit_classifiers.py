"""Trains the small ConvNeXt that segmentors of the studies start from to name single digits, clean and adversarially.

A classifier sees 32x32 crops of the training scenes and names the digit in the middle. The first one learns from clean
images. Two others start from its weights and train equally long: ``clean`` with clean images, and ``robust`` with
adversarial ones (PGD, two steps, 8/255). Robust ImageNet models start from clean ones in the same way. ``first_deep``
and ``clean_deep`` are like the first and the clean one, with three times as many blocks in the third stage of the
backbone. The studies call ``runs``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from experiments import Run, Stage
from timm.models.convnext import ConvNeXt
from torch import Tensor, nn

from mmadv.attacks import PGD, Linf
from mmadv.datasets.digit_scenes import draw_scene

RADIUS = '8/255'
SIDE = 32
SCENES = {'train': 3000, 'val': 500}
ITERATIONS = 1500
BATCH = 64
LEARNING_RATE = 2e-3
# Blocks in each stage of the backbone.
DEPTHS, DEEP = (1, 1, 2, 1), (1, 1, 6, 1)


class Classifier(nn.Module):
    """The backbone of UPerNet's toy config with a classifier; takes RGB crops in [0, 1] and normalises inside.

    Args:
        depths: blocks in each stage.
    """

    def __init__(self, depths: tuple[int, ...] = DEPTHS) -> None:
        super().__init__()
        self.network = ConvNeXt(num_classes=10, depths=depths, dims=(32, 64, 128, 192), ls_init_value=None)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (N, 10, 1, 1): an image of one pixel, as attacks take it."""
        return self.network((images - 0.5) / 0.5)[:, :, None, None]


class Crops:
    """Crops of scenes around a random pixel of a random digit.

    Args:
        split: of the scenes.
    """

    def __init__(self, split: str) -> None:
        self.scenes = [draw_scene(split, index) for index in range(SCENES[split])]

    def draw(self, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Returns (count, 3, 32, 32) RGB crops in [0, 1], and (count, 1, 1) the digits in their middle."""
        images, digits = [], []
        for index in rng.integers(len(self.scenes), size=count):
            scene, labels = self.scenes[index]
            row, column = rng.choice(np.argwhere(labels > 0))
            top, left = (int(np.clip(middle - SIDE // 2, 0, len(labels) - SIDE)) for middle in (row, column))
            images.append(scene[top : top + SIDE, left : left + SIDE, ::-1].transpose(2, 0, 1))
            digits.append(int(labels[row, column]) - 1)
        return torch.from_numpy(np.stack(images)).float() / 255, torch.tensor(digits)[:, None, None]


def train_classifier(arguments: Sequence[str]) -> None:
    """Trains a classifier and writes its weights, and its accuracies beside them.

    Args:
        arguments: 'clean', 'clean_deep' or 'robust', the file of the weights, and the file of those that it starts
            from, if any.
    """
    kind, path, *sources = arguments
    torch.manual_seed(0)
    rng = np.random.default_rng(len(sources))
    model = Classifier(DEEP if kind.endswith('_deep') else DEPTHS)
    for source in sources:
        model.network.load_state_dict(torch.load(source, weights_only=True))
    model.to(memory_format=torch.channels_last)
    crops = Crops('train')
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=LEARNING_RATE, total_steps=ITERATIONS)
    attack = PGD(threat=Linf(radius=RADIUS), steps=2, step_size=0.02)
    for iteration in range(ITERATIONS):
        images, digits = crops.draw(BATCH, rng)
        images = images.to(memory_format=torch.channels_last)
        if kind == 'robust':
            images = attack.perturb(model, images, digits, seeds=range(iteration * BATCH, (iteration + 1) * BATCH))
        loss = F.cross_entropy(model(images), digits)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if iteration % 100 == 0:
            print(f'iteration {iteration}, loss {loss.item():.3f}', flush=True)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).with_suffix('.json').write_text(json.dumps(accuracies(model.eval())), encoding='utf-8')
    torch.save(model.network.state_dict(), path)


def accuracies(model: Classifier) -> dict[str, float]:
    """Returns the accuracy on a crop of each validation scene: clean, and under PGD-20 at 8/255."""
    images, digits = Crops('val').draw(SCENES['val'], np.random.default_rng(0))
    attack = PGD(threat=Linf(radius=RADIUS), steps=20, keep='lowest_accuracy')
    with torch.no_grad():
        clean = (model(images).argmax(1) == digits).float().mean().item()
    return {'clean': clean, 'PGD-20': attack(model, images, digits).accuracy.mean().item()}


def weights(folder: Path, start: str) -> Path:
    """Returns the file of a classifier's weights: of 'first', 'clean' or 'robust', or of one of them with '_deep'."""
    return folder / f'classifier_{start}.pth'


def runs(folder: Path, starts: Sequence[str] = ('clean', 'robust')) -> tuple[list[Run], list[Run]]:
    """Returns the runs that train the first classifiers, and the runs of those that start from them.

    Args:
        folder: folder of the weights.
        starts: the classifiers that are needed: 'clean', 'robust' or 'clean_deep'.
    """
    first, second = {}, []
    for start in starts:
        deep = '_deep' if start.endswith('_deep') else ''
        source, path = weights(folder, f'first{deep}'), weights(folder, start)
        first[source] = Run(source.stem, (Stage(('train_classifier', f'clean{deep}', str(source)), source),))
        stage = Stage(('train_classifier', start, str(path), str(source)), path)
        second.append(Run(path.stem, (stage,), {'start': start}))
    return list(first.values()), second


def accuracy_of(folder: Path, start: str) -> dict[str, Any]:
    """Returns the accuracies that were written beside a classifier's weights."""
    return json.loads(weights(folder, start).with_suffix('.json').read_text(encoding='utf-8'))
