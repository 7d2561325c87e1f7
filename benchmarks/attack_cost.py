"""Measures attacks over the bare model's passes, in the same run: time, and peak memory.

    python benchmarks/attack_cost.py [--classes 11 21 151] [--size 120 160] [--batch-size 8] [--device cpu|cuda]

Bare is the model with frozen parameters, in eval mode, in the faster of the two memory formats: forward, and forward
with the input gradient of the mean logit. An attack of b gradients and f forward passes costs b gradients and f - b
forward passes at least; the ratio is its time over that. All of them take turns, round by round, so that drift of the
machine meets them alike; the ratio is the median over the rounds of each round's own. Pixels and labels are random:
nothing is solved early. Writes benchmarks/results/attack_cost_{DEVICE}.json and the section of docs/evidence.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS
from studies import ROOT, resident_peak, store, write_section

from mmadv.attacks import APGD, PGD, AnnealedMargin, Linf, ama
from mmadv.attacks.attack import Attack, frozen
from mmadv.attacks.presets import SEA_OBJECTIVES
from mmadv.models.adapter import TrainingAdapter

CONFIG = 'configs/clean/upernet_r18_clean_camvid.py'
RADIUS = '4/255'
STEPS = 4
FORMATS = {'contiguous': torch.contiguous_format, 'channels last': torch.channels_last}


def attacks() -> dict[str, Attack]:
    """Returns the attacks to measure, few steps of each."""
    threat = Linf(radius=RADIUS)
    losses = {**SEA_OBJECTIVES['paper'], **SEA_OBJECTIVES['eccv']}
    found: dict[str, Attack] = {'PGD, last iterate': PGD(threat=threat, steps=STEPS)}
    found |= {f'APGD, {name}': APGD(threat=threat, steps=STEPS, objective=loss) for name, loss in losses.items()}
    found['APGD, annealed margin'] = APGD(threat=threat, steps=STEPS, objective=AnnealedMargin())
    found['ama'] = ama(radius=RADIUS, passes=STEPS + 1)
    return found


class Workload:
    """A model in one memory format, and what to time of it.

    Args:
        classes: K of the logits.
        size: height and width.
        batch_size: images of a pass.
        device: 'cpu' or 'cuda'.
        memory_format: a key of ``FORMATS``.
    """

    def __init__(self, classes: int, size: tuple[int, int], batch_size: int, device: str, memory_format: str) -> None:
        settings = Config.fromfile(ROOT / CONFIG).model
        settings.decode_head.num_classes = classes
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope('mmseg'):
            model = MODELS.build(settings)
        model.to(device, memory_format=FORMATS[memory_format])
        self.model = TrainingAdapter(model, size)
        generator = torch.Generator().manual_seed(0)
        self.images = torch.rand(batch_size, 3, *size, generator=generator).to(device)
        self.labels = torch.randint(classes, (batch_size, *size), generator=generator).to(device)

    def forward(self) -> None:
        """Forward alone."""
        with frozen(self.model), torch.no_grad():
            self.model(self.images)

    def gradient(self) -> None:
        """Forward, and the input gradient of the mean logit."""
        with frozen(self.model):
            images = self.images.detach().requires_grad_()
            torch.autograd.grad(self.model(images).mean(), images)

    def perturb(self, attack: Attack) -> tuple[int, int]:
        """Attacks, and returns the forward and backward passes of each image."""
        result = attack(self.model, self.images, self.labels, seeds=range(len(self.images)))
        return int(result.forward_passes[0]), int(result.backward_passes[0])


def seconds(step: Callable[[], Any], device: str) -> float:
    """Returns the wall time of a call, everything on the device included."""
    if device == 'cuda':
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device == 'cuda':
        torch.cuda.synchronize()
    return time.perf_counter() - start


def faster_format(arguments: tuple, rounds: int) -> str:
    """Returns the memory format in which the bare gradient is quicker."""
    found = {}
    for name in FORMATS:
        workload = Workload(*arguments, name)
        workload.gradient()
        found[name] = min(seconds(workload.gradient, arguments[3]) for _ in range(rounds))
    return min(found, key=found.__getitem__)


def time_ratios(workload: Workload, rounds: int, device: str) -> tuple[dict[str, float], dict[str, float]]:
    """Returns each attack's time over that of its passes, and the median seconds of the bare ones."""
    passes = {name: workload.perturb(attack) for name, attack in attacks().items()}
    ratios: dict[str, list[float]] = {name: [] for name in passes}
    bare: dict[str, list[float]] = {'forward': [], 'gradient': []}
    for index in range(rounds):
        # Half of the bare passes before and half after each attack: what drifts meets both.
        for name in list(passes)[:: 1 if index % 2 == 0 else -1]:
            attack = attacks()[name]
            around = [(seconds(workload.forward, device), seconds(workload.gradient, device))]
            taken = seconds(lambda attack=attack: workload.perturb(attack), device)
            around.append((seconds(workload.forward, device), seconds(workload.gradient, device)))
            forward, gradient = (statistics.fmean(pair[part] for pair in around) for part in (0, 1))
            forwards, backwards = passes[name]
            ratios[name].append(taken / (backwards * gradient + (forwards - backwards) * forward))
            bare['forward'].append(forward)
            bare['gradient'].append(gradient)
    return (
        {name: statistics.median(values) for name, values in ratios.items()},
        {name: statistics.median(values) for name, values in bare.items()},
    )


def memory_ratios(arguments: tuple, memory_format: str) -> dict[str, float]:
    """Returns each attack's peak memory over that of the bare gradient."""

    def peak(step: Callable[[Workload], Any]) -> float:
        if arguments[3] != 'cuda':
            return resident_peak(lambda: Workload(*arguments, memory_format), step)
        workload = Workload(*arguments, memory_format)
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step(workload)
        return torch.cuda.max_memory_allocated() - before

    bare = peak(lambda workload: workload.gradient())
    return {
        name: peak(lambda workload, attack=attack: workload.perturb(attack)) / bare
        for name, attack in attacks().items()
    }


def table(content: dict[str, Any]) -> str:
    """Returns the Markdown table of stored results."""
    classes = sorted({record['classes'] for record in content['records']})
    heads = [f'{k} classes: {what}' for k in classes for what in ('time', 'memory')]
    lines = [f'| attack | {" | ".join(heads)} |', '|---|' + '---:|' * len(heads)]
    for name in dict.fromkeys(record['attack'] for record in content['records']):
        chosen = {record['classes']: record for record in content['records'] if record['attack'] == name}
        cells = [f'{chosen[k][key]:.2f}' for k in classes for key in ('time_ratio', 'memory_ratio')]
        lines.append(f'| {name} | {" | ".join(cells)} |')
    machine = content['hardware']
    where = ', '.join(machine['accelerators']) if content['device'] == 'cuda' else f'{machine["threads"]} thread(s)'
    height, width = content['size']
    bare = '; '.join(
        f'{k} classes: forward {values["forward"]:.2f} s, with gradient {values["gradient"]:.2f} s, {values["format"]}'
        for k, values in content['bare'].items()
    )
    lines += [
        '',
        f'Bare passes: {bare}. `{CONFIG}`, {width}x{height}, batch {content["batch_size"]}, '
        f'{content["rounds"]} rounds; {machine["processor"]}, {where}; torch {content["versions"]["torch"]}; '
        f'{content["date"]}.',
        '',
        f'```bash\n{content["command"]}\n```',
    ]
    return '\n'.join(lines)


def main() -> None:
    """Measures, stores and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--classes', type=int, nargs='+', default=[11, 21, 151])
    parser.add_argument('--size', type=int, nargs=2, default=(120, 160), metavar=('HEIGHT', 'WIDTH'))
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    given = parser.parse_args()
    records, bare = [], {}
    for classes in given.classes:
        arguments = (classes, tuple(given.size), given.batch_size, given.device)
        # First, so that the processes which measure memory are forked from one that has run nothing yet.
        memory = memory_ratios(arguments, 'channels last')
        memory_format = faster_format(arguments, 3)
        ratios, medians = time_ratios(Workload(*arguments, memory_format), given.rounds, given.device)
        bare[classes] = {**medians, 'format': memory_format}
        for name, ratio in ratios.items():
            records.append({'attack': name, 'classes': classes, 'time_ratio': ratio, 'memory_ratio': memory[name]})
            print(f'{classes} classes, {name}: time {ratio:.3f}, memory {memory[name]:.2f}', flush=True)
    path = store(
        f'attack_cost_{given.device}',
        records,
        threads=torch.get_num_threads(),
        size=list(given.size),
        batch_size=given.batch_size,
        rounds=given.rounds,
        device=given.device,
        bare=bare,
    )
    content = json.loads(Path(path).read_text(encoding='utf-8'))
    write_section(ROOT / 'docs/evidence.md', 'benchmarks/attack_cost.py', table(content))


if __name__ == '__main__':
    main()
