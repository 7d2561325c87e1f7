"""Measures one training step of each method over a clean step of the same model, in the same run.

    python benchmarks/training_cost.py [--config CONFIG] [--size 120 160] [--batch-size 8] [--compare]

An attack step differentiates with respect to the images only. Take a method with k attack steps, f passes without a
gradient and t passes that train the weights. It should cost t + k·g + f·h clean steps, with g = (forward + input
gradient of the bare model) / (clean step) and h = (forward of the bare model) / (clean step). t is 1, but 2 for TRADES,
which trains on clean and adversarial images. TRADES also needs one forward pass for the prediction that its attack
leads away from. A replay of "free" training is one pass for the weights and the perturbation.

All methods take turns, round by round, so that drift of the machine affects all alike. A ratio is the ratio of the
medians over the rounds. Time is processor time on a CPU, which leaves out the wait for other programs, and wall time on
a GPU. Memory is measured once for each method: the peak that torch allocated beside model and optimiser. Images and
labels are random: time does not depend on them. Fast Newton and attacks that keep the last iterate take the same passes
for any image. Writes benchmarks/results/training_cost_{DEVICE}.json and the table of docs/performance.md. With
--compare it writes nothing and prints the ratios beside the stored ones.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from experiments import PERFORMANCE, ROOT, allocated_peak, comparison, store, write_section
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import nn

from mmadv.attacks.freezing import frozen
from mmadv.models.adapter import TrainingAdapter
from mmadv.models.building import build_segmentor
from mmadv.models.free_adv_data_preprocessor import FreeAdvSegDataPreProcessor

RADIUS = dict(type='Linf', radius='4/255')


@dataclass(frozen=True)
class Method:
    """A way to train.

    Attributes:
        attack: attack of the preprocessor; none in clean and "free" training.
        gradients: number of gradients with respect to the images only in one step.
        forwards: number of passes without a gradient in one step.
        trainings: number of forward and backward passes with respect to the weights in one step.
        segmentor: settings of the model that differ.
        preprocessor: other settings of the preprocessor that differ.
    """

    attack: dict[str, Any] | None = None
    gradients: int = 0
    forwards: int = 0
    trainings: int = 1
    segmentor: dict[str, Any] = field(default_factory=dict)
    preprocessor: dict[str, Any] = field(default_factory=dict)

    def build(self, model: Config, device: torch.device) -> nn.Module:
        """Returns the segmentor in training, with its preprocessor, for the same weights in every method."""
        settings = copy.deepcopy(model)
        kind = {'type': 'AdvSegDataPreProcessor', 'prob': float(self.attack is not None), 'attack': self.attack}
        settings.data_preprocessor.update(self.preprocessor or kind)
        settings.update(self.segmentor)
        torch.manual_seed(0)
        built = build_segmentor({'model': settings}).to(device, memory_format=torch.channels_last).train()
        if isinstance(built.data_preprocessor, FreeAdvSegDataPreProcessor):
            built.data_preprocessor.slot = 0  # FreeTrainLoop's part
        return built


def steps_of(kind: str, steps: int, **more: Any) -> Method:
    """Returns the method of adversarial training with an iterative attack."""
    return Method(dict(type=kind, threat=RADIUS, steps=steps, step_size=0.01, **more), steps)


METHODS = {
    'clean': Method(),
    'FGSM': Method(dict(type='FGSM', threat=RADIUS), 1),
    'RS-FGSM': Method(dict(type='PGD', threat=RADIUS, steps=1, step_size='5/255'), 1),
    'Fast Newton': Method(dict(type='FastNewton'), 1),
    'free, one replay': Method(preprocessor=dict(type='FreeAdvSegDataPreProcessor', radius='4/255')),
    'PGD-2': steps_of('PGD', 2),
    'PGD-3': steps_of('PGD', 3),
    'PGD-5': steps_of('PGD', 5),
    'SegPGD-5': steps_of('SegPGD', 5),
    'CosPGD-5': steps_of('CosPGD', 5),
    'TRADES with PGD-5': dataclasses.replace(
        steps_of('PGD', 5, objective=dict(type='KullbackLeibler')),
        forwards=1,
        trainings=2,
        segmentor=dict(type='TRADESEncoderDecoder', beta=6.0),
    ),
}


class Workload:
    """A model, and steps to time: one training step of each method, and one pass of the bare model.

    Args:
        config: config of a clean training.
        size: height and width of the images.
        batch_size: images of a step.
        device: 'cpu' or 'cuda'.
        methods: names of METHODS.
    """

    def __init__(
        self, config: str, size: tuple[int, int], batch_size: int, device: str, methods: Iterable[str] = tuple(METHODS)
    ) -> None:
        self.device = torch.device(device)
        model = Config.fromfile(ROOT / config).model
        self.models = {name: METHODS[name].build(model, self.device) for name in methods}
        # Each method has its own model, so that the steps of one method do not affect another.
        self.optim_wrappers = {
            name: OptimWrapper(torch.optim.AdamW(built.parameters(), lr=1e-5)) for name, built in self.models.items()
        }
        rng = np.random.default_rng(0)
        pixels = torch.from_numpy(rng.integers(0, 256, (batch_size, 3, *size), dtype=np.uint8))
        labels = torch.from_numpy(rng.integers(0, model.decode_head.num_classes, (batch_size, 1, *size)))
        samples = []
        for label in labels:
            sample = SegDataSample(gt_sem_seg=PixelData(data=label))
            sample.set_metainfo({'img_shape': size, 'ori_shape': size, 'pad_shape': size})
            samples.append(sample)
        self.data = {'inputs': list(pixels), 'data_samples': samples}
        self.images = pixels.float().div(255).to(self.device)

    def train_step(self, name: str) -> None:
        """One training step of a method."""
        self.models[name].train_step(copy.copy(self.data), self.optim_wrappers[name])

    def bare_pass(self) -> None:
        """Forward and input gradient of the model alone: frozen, in eval mode, the mean logit as the loss."""
        adapter = TrainingAdapter(self.models['clean'], self.images.shape[-2:])
        with frozen(adapter):
            images = self.images.detach().requires_grad_()
            torch.autograd.grad(adapter(images).mean(), images)

    @torch.no_grad()
    def bare_forward(self) -> None:
        """Forward of the model alone, in eval mode."""
        adapter = TrainingAdapter(self.models['clean'], self.images.shape[-2:])
        with frozen(adapter):
            adapter(self.images)

    def seconds(self, step: Callable[[], None]) -> float:
        """Processor time of one call on a CPU, wall time on a GPU."""
        if self.device.type == 'cpu':
            start = time.process_time()
            step()
            return time.process_time() - start
        torch.cuda.synchronize()
        start = time.perf_counter()
        step()
        torch.cuda.synchronize()
        return time.perf_counter() - start


def times(workload: Workload, rounds: int) -> dict[str, list[float]]:
    """Returns the seconds of each round, of every method and of the bare pass, in turns."""
    steps: dict[str, Callable[[], None]] = {
        name: (lambda name=name: workload.train_step(name)) for name in workload.models
    }
    steps['bare pass'] = workload.bare_pass
    steps['bare forward'] = workload.bare_forward
    for step in steps.values():
        step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for index in range(rounds):
        # Every second round runs in reverse order, so that the cache content left by a step affects all methods alike.
        for name in list(steps)[:: 1 if index % 2 == 0 else -1]:
            seconds[name].append(workload.seconds(steps[name]))
    return seconds


def peak_memory(arguments: tuple, name: str) -> float:
    """Returns the bytes that a training step of a method needs at most, beside the model and its optimiser."""
    workload = Workload(*arguments, methods=[name])
    workload.train_step(name)
    return allocated_peak(lambda: workload.train_step(name), arguments[3])


def table(content: dict[str, Any]) -> str:
    """Returns the Markdown table of stored results."""
    gradient, forward = content['bare_over_clean'], content['forward_over_clean']
    lines = [
        '| training step | time / clean step | t + k·g + f·h | above it | peak memory / clean step |',
        '|---|---:|---:|---:|---:|',
    ]
    for record in content['records']:
        expected = record['trainings'] + record['gradients'] * gradient + record['forwards'] * forward
        lines.append(
            f'| {record["method"]} | {record["time_ratio"]:.2f} | {expected:.2f} | '
            f'{100 * (record["time_ratio"] / expected - 1):+.1f} % | {record["memory_ratio"]:.2f} |'
        )
    machine = content['hardware']
    where = ', '.join(machine['accelerators']) if content['device'] == 'cuda' else f'{machine["threads"]} thread(s)'
    height, width = content['size']
    lines += [
        '',
        f'g = {gradient:.3f}, h = {forward:.3f}; a clean step takes {content["clean_seconds"]:.2f} s. '
        f'`{content["config"]}`, {width}x{height}, batch {content["batch_size"]}, {content["rounds"]} rounds; '
        f'{machine["processor"]}, {where}; '
        f'torch {content["versions"]["torch"]}; {content["date"]}.',
        '',
        f'```bash\n{content["command"]}\n```',
    ]
    return '\n'.join(lines)


def main() -> None:
    """Measures, and stores and writes the table or compares with what is stored."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--config', default='configs/clean/upernet_r18_clean_camvid.py', help='a clean training')
    parser.add_argument('--size', type=int, nargs=2, default=(120, 160), metavar=('HEIGHT', 'WIDTH'))
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--rounds', type=int, default=12)
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--compare', action='store_true', help='write nothing; print the stored ratios beside these')
    options = parser.parse_args()
    arguments = (options.config, tuple(options.size), options.batch_size, options.device)
    memory = {name: peak_memory(arguments, name) for name in METHODS}
    workload = Workload(*arguments)
    seconds = {name: statistics.median(values) for name, values in times(workload, options.rounds).items()}
    clean = seconds['clean']
    records = [
        {
            'method': name,
            'gradients': method.gradients,
            'forwards': method.forwards,
            'trainings': method.trainings,
            'seconds': seconds[name],
            'time_ratio': seconds[name] / clean,
            'memory_ratio': memory[name] / memory['clean'],
        }
        for name, method in METHODS.items()
    ]
    experiment = f'training_cost_{options.device}'
    if options.compare:
        print(comparison(experiment, records, ('method',), ('time_ratio', 'memory_ratio')))
        return
    path = store(
        experiment,
        records,
        config=options.config,
        size=list(options.size),
        batch_size=options.batch_size,
        rounds=options.rounds,
        device=options.device,
        clean_seconds=clean,
        bare_over_clean=seconds['bare pass'] / clean,
        forward_over_clean=seconds['bare forward'] / clean,
        threads=torch.get_num_threads(),
    )
    text = table(json.loads(path.read_text(encoding='utf-8')))
    write_section(PERFORMANCE, 'benchmarks/training_cost.py', text)
    print(text)


if __name__ == '__main__':
    main()
