"""Measures the time and the peak memory of attacks relative to the passes of the bare model, in the same run.

    python benchmarks/attack_cost.py [--cases 11x160x120x8 ...] [--device cpu|cuda] [--compare]

The bare model has frozen parameters, is in eval mode, and uses the faster of the two memory formats. Its passes are the
forward pass, and the forward pass with the input gradient of the mean logit. An attack of b gradients and f forward
passes costs at least b gradients and f - b forward passes. The ratio is the attack's time over this minimum. Time is
processor time on a CPU, which leaves out the wait for other programs, and wall time on a GPU. All attacks take turns,
round by round, so that drift of the machine affects all alike. The ratio is the median of the ratios of the rounds.
Peak memory is the attack's peak over the peak of the bare gradient, counted in bytes that torch allocated. Memory that
the allocator of the process holds beyond that does not count. Pixels and labels are random: no attack ends early.
Writes benchmarks/results/attack_cost_{DEVICE}.json and the section of docs/performance.md. With --compare it writes
nothing and prints the ratios beside the stored ones.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from experiments import PERFORMANCE, ROOT, allocated_peak, comparison, store, write_section
from mmengine.config import Config

from mmadv.attacks import APGD, PGD, AnnealedMargin, Linf, ama
from mmadv.attacks.attack import Attack
from mmadv.attacks.freezing import frozen
from mmadv.attacks.presets import SEA_OBJECTIVES
from mmadv.models.adapter import TrainingAdapter
from mmadv.models.building import build_segmentor

CONFIG = 'configs/clean/upernet_r18_clean_camvid.py'
RADIUS = '4/255'
STEPS = 4
# Classes, width and height, images of a pass.
CASES = ('11x160x120x8', '21x160x120x8', '151x160x120x8', '11x160x120x1', '11x320x240x2', '151x512x512x1')
FORMATS = {'contiguous': torch.contiguous_format, 'channels last': torch.channels_last}


def attacks() -> dict[str, Attack]:
    """Returns the attacks to measure, few steps of each."""
    threat = Linf(radius=RADIUS)
    losses = {**SEA_OBJECTIVES['paper'], **SEA_OBJECTIVES['eccv-image']}
    by_name: dict[str, Attack] = {'PGD, last iterate': PGD(threat=threat, steps=STEPS)}
    by_name |= {f'APGD, {name}': APGD(threat=threat, steps=STEPS, objective=loss) for name, loss in losses.items()}
    by_name['APGD, annealed margin'] = APGD(threat=threat, steps=STEPS, objective=AnnealedMargin())
    by_name['ama'] = ama(radius=RADIUS, passes=STEPS + 1)
    return by_name


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
        settings = Config.fromfile(ROOT / CONFIG)
        settings.model.decode_head.num_classes = classes
        torch.manual_seed(0)
        model = build_segmentor(settings)
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
    """Returns the processor time of a call on a CPU, its wall time on a GPU."""
    if device == 'cpu':
        start = time.process_time()
        step()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def faster_format(arguments: tuple, rounds: int) -> str:
    """Returns the memory format in which the bare gradient takes less time."""
    times = {}
    for name in FORMATS:
        workload = Workload(*arguments, name)
        workload.gradient()
        times[name] = min(seconds(workload.gradient, arguments[3]) for _ in range(rounds))
    return min(times, key=times.__getitem__)


def time_ratios(workload: Workload, rounds: int, device: str) -> tuple[dict[str, float], dict[str, float]]:
    """Returns each attack's time over that of its passes, and the median seconds of the bare ones."""
    passes = {name: workload.perturb(attack) for name, attack in attacks().items()}
    ratios: dict[str, list[float]] = {name: [] for name in passes}
    bare: dict[str, list[float]] = {'forward': [], 'gradient': []}
    for index in range(rounds):
        # Half of the bare passes run before each attack and half after it, so that drift affects both alike.
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
    workload = Workload(*arguments, memory_format)

    def peak(step: Callable[[], Any]) -> float:
        step()
        return allocated_peak(step, arguments[3])

    bare = peak(workload.gradient)
    return {name: peak(lambda attack=attack: workload.perturb(attack)) / bare for name, attack in attacks().items()}


def measure(case: str, rounds: int, device: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Returns a record for each attack, and the time of the bare passes.

    Args:
        case: classes, width, height and batch size, such as '11x160x120x8'.
        rounds: of all attacks in turn.
        device: 'cpu' or 'cuda'.
    """
    classes, width, height, batch_size = map(int, case.split('x'))
    arguments = (classes, (height, width), batch_size, device)
    memory_format = faster_format(arguments, 3)
    memory = memory_ratios(arguments, memory_format)
    ratios, medians = time_ratios(Workload(*arguments, memory_format), rounds, device)
    records = []
    for name, ratio in ratios.items():
        records.append({'case': case, 'attack': name, 'time_ratio': ratio, 'memory_ratio': memory[name]})
        print(f'{case}, {name}: time {ratio:.3f}, memory {memory[name]:.2f}', flush=True)
    return records, {**medians, 'format': memory_format}


def table(content: dict[str, Any], key: str) -> str:
    """Returns the Markdown table of one ratio: attacks by cases."""
    cases = list(content['bare'])
    heads = []
    for case in cases:
        classes, width, height, batch_size = case.split('x')
        heads.append(f'{classes} classes, {width}x{height}, batch {batch_size}')
    lines = [f'| attack | {" | ".join(heads)} |', '|---|' + '---:|' * len(heads)]
    for name in dict.fromkeys(record['attack'] for record in content['records']):
        numbers = {record['case']: record[key] for record in content['records'] if record['attack'] == name}
        lines.append(f'| {name} | {" | ".join(f"{numbers[case]:.2f}" for case in cases)} |')
    return '\n'.join(lines)


def section(content: dict[str, Any]) -> str:
    """Returns the Markdown of stored results."""
    machine = content['hardware']
    where = ', '.join(machine['accelerators']) if content['device'] == 'cuda' else f'{machine["threads"]} thread(s)'
    bare = '; '.join(
        f'{case}: {values["forward"]:.2f} s forward, {values["gradient"]:.2f} s with gradient, {values["format"]}'
        for case, values in content['bare'].items()
    )
    return '\n\n'.join(
        [
            f'Time over the bare passes:\n\n{table(content, "time_ratio")}',
            f'Peak memory over that of a bare gradient:\n\n{table(content, "memory_ratio")}',
            f'Bare passes: {bare}. `{CONFIG}`, {STEPS} steps, {content["rounds"]} rounds; {machine["processor"]}, '
            f'{where}; torch {content["versions"]["torch"]}; {content["date"]}.',
            f'```bash\n{content["command"]}\n```',
        ]
    )


def main() -> None:
    """Measures, and stores and writes the tables or compares with what is stored."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--cases', nargs='+', default=CASES, metavar='CLASSESxWIDTHxHEIGHTxBATCH')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--compare', action='store_true', help='write nothing; print the stored ratios beside these')
    arguments = parser.parse_args()
    records, bare = [], {}
    for case in arguments.cases:
        measured, bare[case] = measure(case, arguments.rounds, arguments.device)
        records += measured
    experiment = f'attack_cost_{arguments.device}'
    if arguments.compare:
        print(comparison(experiment, records, ('case', 'attack'), ('time_ratio', 'memory_ratio')))
        return
    more = {'rounds': arguments.rounds, 'device': arguments.device, 'bare': bare}
    path = store(experiment, records, threads=torch.get_num_threads(), **more)
    write_section(PERFORMANCE, 'benchmarks/attack_cost.py', section(json.loads(path.read_text(encoding='utf-8'))))


if __name__ == '__main__':
    main()
