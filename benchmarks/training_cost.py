"""Measures one training step of each method over a clean step of the same model, in the same run.

    python benchmarks/training_cost.py [--config CONFIG] [--size 120 160] [--batch-size 8] [--device cpu|cuda]

An attack step differentiates with respect to the images only, so a method with k of them should cost 1 + k·g clean
steps, where g = (forward + input gradient of the bare model) / (clean step). All methods take turns, round by round, so
that drift of the machine meets them alike; a ratio is that of the rounds' medians. Memory is measured once for each
method: on a GPU the peak that torch allocated, on a CPU the peak resident memory of a process of its own. Images and
labels are random: time does not depend on them, except that Fast Newton and attacks that keep the last iterate take the
same passes for any image. Writes benchmarks/results/training_cost_{DEVICE}.json and the table of docs/evidence.md.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from studies import ROOT, resident_peak, store, write_section

from mmadv.attacks.attack import frozen
from mmadv.models.adapter import TrainingAdapter

RADIUS = dict(type='Linf', radius='4/255')
# Name -> (attack, gradients that it takes).
METHODS: dict[str, tuple[dict[str, Any] | None, int]] = {
    'clean': (None, 0),
    'FGSM': (dict(type='FGSM', threat=RADIUS), 1),
    'RS-FGSM': (dict(type='PGD', threat=RADIUS, steps=1, step_size='5/255'), 1),
    'Fast Newton': (dict(type='FastNewton'), 1),
    'PGD-2': (dict(type='PGD', threat=RADIUS, steps=2, step_size=0.01), 2),
    'PGD-3': (dict(type='PGD', threat=RADIUS, steps=3, step_size=0.01), 3),
    'PGD-5': (dict(type='PGD', threat=RADIUS, steps=5, step_size=0.01), 5),
    'SegPGD-5': (dict(type='SegPGD', threat=RADIUS, steps=5, step_size=0.01), 5),
    'CosPGD-5': (dict(type='CosPGD', threat=RADIUS, steps=5, step_size=0.01), 5),
}


class Workload:
    """A model, and steps to time: one training step of each method, and one pass of the bare model.

    Args:
        config: of a clean training.
        size: height and width of the images.
        batch_size: images of a step.
        device: 'cpu' or 'cuda'.
    """

    def __init__(self, config: str, size: tuple[int, int], batch_size: int, device: str) -> None:
        self.device = torch.device(device)
        settings = Config.fromfile(ROOT / config)
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope('mmseg'):
            settings.model.data_preprocessor.type = 'AdvSegDataPreProcessor'
            settings.model.data_preprocessor.prob = 0
            self.model = MODELS.build(settings.model)
            self.methods = {}
            for name, (attack, _) in METHODS.items():
                options = dict(attack=attack, prob=1.0) if attack else dict(prob=0)
                self.methods[name] = MODELS.build({**settings.model.data_preprocessor, **options})
        self.model.to(self.device, memory_format=torch.channels_last).train()
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5)
        self.optim_wrapper = OptimWrapper(optimizer)
        rng = np.random.default_rng(0)
        pixels = torch.from_numpy(rng.integers(0, 256, (batch_size, 3, *size), dtype=np.uint8))
        labels = torch.from_numpy(rng.integers(0, self.model.num_classes, (batch_size, 1, *size)))
        samples = []
        for label in labels:
            sample = SegDataSample(gt_sem_seg=PixelData(data=label))
            sample.set_metainfo({'img_shape': size, 'ori_shape': size, 'pad_shape': size})
            samples.append(sample)
        self.data = {'inputs': list(pixels), 'data_samples': samples}
        self.images = pixels.float().div(255).to(self.device)
        for preprocessor in self.methods.values():
            preprocessor.to(self.device)

    def train_step(self, name: str) -> None:
        """One training step of a method."""
        self.model.data_preprocessor = self.methods[name]
        self.model.train_step(copy.copy(self.data), self.optim_wrapper)

    def bare_pass(self) -> None:
        """Forward and input gradient of the model alone: frozen, in eval mode, the mean logit as the loss."""
        adapter = TrainingAdapter(self.model, self.images.shape[-2:])
        with frozen(adapter):
            images = self.images.detach().requires_grad_()
            torch.autograd.grad(adapter(images).mean(), images)

    def seconds(self, step: Callable[[], None]) -> float:
        """Wall time of one call, everything on the device included."""
        if self.device.type == 'cuda':
            torch.cuda.synchronize()
        start = time.perf_counter()
        step()
        if self.device.type == 'cuda':
            torch.cuda.synchronize()
        return time.perf_counter() - start


def times(workload: Workload, rounds: int) -> dict[str, list[float]]:
    """Returns the seconds of each round, of every method and of the bare pass, in turns."""
    steps: dict[str, Callable[[], None]] = {
        name: (lambda name=name: workload.train_step(name)) for name in workload.methods
    }
    steps['bare pass'] = workload.bare_pass
    for step in steps.values():
        step()
    found: dict[str, list[float]] = {name: [] for name in steps}
    for index in range(rounds):
        # Every second round backwards: what a step leaves in the caches meets all alike.
        for name in list(steps)[:: 1 if index % 2 == 0 else -1]:
            found[name].append(workload.seconds(steps[name]))
    return found


def peak_memory(arguments: tuple, name: str) -> float:
    """Returns the bytes that two training steps of a method need at most, beside the model and its optimiser."""
    if arguments[3] == 'cuda':
        workload = Workload(*arguments)
        workload.train_step('clean')
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        workload.train_step(name)
        return torch.cuda.max_memory_allocated() - before
    return resident_peak(lambda: Workload(*arguments), lambda workload: workload.train_step(name))


def table(content: dict[str, Any]) -> str:
    """Returns the Markdown table of stored results."""
    gradient = content['bare_over_clean']
    lines = [
        '| training step | time / clean step | 1 + k·g | above it | peak memory / clean step |',
        '|---|---:|---:|---:|---:|',
    ]
    for record in content['records']:
        expected = 1 + record['gradients'] * gradient
        lines.append(
            f'| {record["method"]} | {record["time_ratio"]:.2f} | {expected:.2f} | '
            f'{100 * (record["time_ratio"] / expected - 1):+.1f} % | {record["memory_ratio"]:.2f} |'
        )
    machine = content['hardware']
    where = ', '.join(machine['accelerators']) if content['device'] == 'cuda' else f'{machine["threads"]} thread(s)'
    height, width = content['size']
    lines += [
        '',
        f'g = {gradient:.3f}; a clean step takes {content["clean_seconds"]:.2f} s. `{content["config"]}`, '
        f'{width}x{height}, batch {content["batch_size"]}, {content["rounds"]} rounds; '
        f'{machine["processor"]}, {where}; '
        f'torch {content["versions"]["torch"]}; {content["date"]}.',
        '',
        f'```bash\n{content["command"]}\n```',
    ]
    return '\n'.join(lines)


def main() -> None:
    """Measures, stores and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--config', default='configs/clean/upernet_r18_clean_camvid.py', help='a clean training')
    parser.add_argument('--size', type=int, nargs=2, default=(120, 160), metavar=('HEIGHT', 'WIDTH'))
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--rounds', type=int, default=12)
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    given = parser.parse_args()
    arguments = (given.config, tuple(given.size), given.batch_size, given.device)
    memory = {name: peak_memory(arguments, name) for name in METHODS}
    workload = Workload(*arguments)
    found = {name: statistics.median(values) for name, values in times(workload, given.rounds).items()}
    clean = found['clean']
    records = [
        {
            'method': name,
            'gradients': gradients,
            'seconds': found[name],
            'time_ratio': found[name] / clean,
            'memory_ratio': memory[name] / memory['clean'],
        }
        for name, (_, gradients) in METHODS.items()
    ]
    path = store(
        f'training_cost_{given.device}',
        records,
        config=given.config,
        size=list(given.size),
        batch_size=given.batch_size,
        rounds=given.rounds,
        device=given.device,
        clean_seconds=clean,
        bare_over_clean=found['bare pass'] / clean,
        threads=torch.get_num_threads(),
    )
    text = table(json.loads(Path(path).read_text(encoding='utf-8')))
    write_section(ROOT / 'docs/evidence.md', 'benchmarks/training_cost.py', text)
    print(text)


if __name__ == '__main__':
    main()
