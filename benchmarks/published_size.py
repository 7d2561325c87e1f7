"""Measures one real-size training step and attack step of the published segmentors: seconds and peak memory.

    python benchmarks/published_size.py [--threads 2] [--device cpu] [--only TITLE ...]

The training step is that of configs/pir_at/upernet_convnext_t_voc.py at its crop of 473: five attack steps and one step
for the weights. Its batch is 2, because UPerNet pools to one value for each image, and batch norm cannot train on one
value. Attack steps are those of APGD on the masked cross-entropy, for the configs in configs/published at their own
size, batch 1. Other losses of SEA cost the same (docs/performance.md). Images, labels and weights are random: time does
not depend on them. Every case runs in its own process, on a GPU once to warm up and once to measure. Memory on a CPU is
the peak of the process, with Python and its libraries. Memory on a GPU is the peak that torch allocated there.
Processor time is summed over the threads and leaves out the wait for other programs. Writes
benchmarks/results/published_size_{DEVICE}.json and the table of docs/published.md.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import time
from typing import Any

import torch
from experiments import ROOT, store, write_section
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmadv.attacks import APGD
from mmadv.models.adapter import TrainingAdapter
from mmadv.models.building import build_segmentor

DOCUMENT = ROOT / 'docs' / 'published.md'
TRAINING = 'pir_at/upernet_convnext_t_voc.py'
STEPS = 2
# Title -> config, side of the images, images of a step.
CASES: dict[str, tuple[str, int, int]] = {
    'training step': (TRAINING, 473, 2),
    'UPerNet + ConvNeXt-T, VOC': ('published/upernet_convnext_t_voc_sea_protocol.py', 473, 1),
    'UPerNet + ConvNeXt-S, VOC': ('published/upernet_convnext_s_voc_sea_protocol.py', 473, 1),
    'UPerNet + ConvNeXt-T, ADE20K': ('published/upernet_convnext_t_ade20k_sea_protocol.py', 512, 1),
    'UPerNet + ConvNeXt-S, ADE20K': ('published/upernet_convnext_s_ade20k_sea_protocol.py', 512, 1),
    'Segmenter + ViT-S, ADE20K': ('published/segmenter_vit_s_ade20k_sea_protocol.py', 512, 1),
}
# Data of a case -> number of images of the published numbers.
IMAGES = {'VOC': 1449, 'ADE20K': 2000}
# Losses and iterations of the later SEA.
LOSSES, ITERATIONS = 3, 300


def training_step(config: str, size: int, batch_size: int, device: str) -> Any:
    """Returns a function that takes one training step, attack included."""
    torch.manual_seed(0)
    settings = Config.fromfile(ROOT / 'configs' / config).model
    settings.backbone.pop('init_cfg')
    model = build_segmentor({'model': settings}).to(device).train()
    optimizer = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=1e-5))
    inputs = list(torch.randint(0, 256, (batch_size, 3, size, size), dtype=torch.uint8))
    samples = []
    for label in torch.randint(settings.decode_head.num_classes, (batch_size, 1, size, size)):
        sample = SegDataSample(gt_sem_seg=PixelData(data=label))
        sample.set_metainfo({'img_shape': (size, size), 'ori_shape': (size, size), 'pad_shape': (size, size)})
        samples.append(sample)
    return lambda: model.train_step({'inputs': list(inputs), 'data_samples': list(samples)}, optimizer)


def attack_steps(config: str, size: int, batch_size: int, device: str) -> Any:
    """Returns a function that takes STEPS iterations of APGD."""
    torch.manual_seed(0)
    settings = Config.fromfile(ROOT / 'configs' / config).model
    model = TrainingAdapter(build_segmentor({'model': settings}).to(device).eval(), (size, size))
    images = torch.rand(batch_size, 3, size, size, device=device)
    labels = torch.randint(settings.decode_head.num_classes, (batch_size, size, size), device=device)
    attack = APGD(threat={'type': 'Linf', 'radius': '4/255'}, steps=STEPS)
    return lambda: attack(model, images, labels)


def measure(title: str, threads: int, device: str, answer: Any) -> None:
    """Puts the seconds of one step and the bytes of a case into the queue ``answer``."""
    torch.set_num_threads(threads)
    config, size, batch_size = CASES[title]
    is_training = config == TRAINING
    step = (training_step if is_training else attack_steps)(config, size, batch_size, device)
    if device == 'cuda':
        step()  # the first step chooses the kernels
    synchronize = torch.cuda.synchronize if device == 'cuda' else (lambda: None)
    synchronize()
    start, busy = time.perf_counter(), time.process_time()
    step()
    synchronize()
    steps = 1 if is_training else STEPS
    seconds, processor = (time.perf_counter() - start) / steps, (time.process_time() - busy) / steps
    if device == 'cuda':
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer.put({'seconds': seconds, 'processor_seconds': processor, 'peak_bytes': peak, 'load': os.getloadavg()[0]})


def run(title: str, threads: int, device: str) -> dict[str, Any]:
    """Returns the record of a case, measured in a process of its own."""
    context = multiprocessing.get_context('spawn')
    answer = context.Queue()
    process = context.Process(target=measure, args=(title, threads, device, answer))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f'{title} failed; its error is above')
    config, size, batch_size = CASES[title]
    record = {'title': title, 'config': config, 'size': size, 'batch_size': batch_size, **answer.get()}
    print(f'{title}: {record["seconds"]:.1f} s, {record["peak_bytes"] / 2**30:.1f} GiB', flush=True)
    return record


def hours_of_sea(title: str, seconds: float) -> float:
    """Returns the hours of SEA at one radius over the whole data set of a case, from the seconds of an iteration.

    >>> hours_of_sea('UPerNet + ConvNeXt-T, VOC', 1.0)
    362.25
    """
    return IMAGES[title.rpartition(', ')[2]] * LOSSES * ITERATIONS * seconds / 3600


def table(content: dict[str, Any]) -> str:
    """Returns the Markdown of stored results."""
    lines = [
        '| step | size, batch | seconds | processor seconds | peak memory, GiB | hours of SEA at one radius |',
        '|---|---|---:|---:|---:|---:|',
    ]
    for record in content['records']:
        is_training = record['config'] == TRAINING
        what = f'training step of `{record["config"]}`' if is_training else f'attack step, {record["title"]}'
        hours = '' if is_training else f'{hours_of_sea(record["title"], record["seconds"]):,.0f}'
        side = record['size']
        lines.append(
            f'| {what} | {side}x{side}, {record["batch_size"]} | {record["seconds"]:.3g} | '
            f'{record["processor_seconds"]:.3g} | {record["peak_bytes"] / 2**30:.1f} | {hours} |'
        )
    machine, loads = content['hardware'], [record['load'] for record in content['records']]
    where = ', '.join(machine['accelerators']) if content['device'] == 'cuda' else f'{machine["threads"]} threads'
    lines += [
        '',
        f'{machine["processor"]}, {where}; torch {content["versions"]["torch"]}; {content["date"]}. The load of the '
        f'machine was {min(loads):.1f} to {max(loads):.1f}: more than the threads means that other jobs ran beside it.',
        '',
        f'```bash\n{content["command"]}\n```',
    ]
    return '\n'.join(lines)


def main() -> None:
    """Measures the cases, stores the records and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--only', nargs='+', choices=list(CASES), help='some cases, printed and not stored')
    arguments = parser.parse_args()
    records = [run(title, arguments.threads, arguments.device) for title in arguments.only or CASES]
    if arguments.only:
        return
    path = store(
        f'published_size_{arguments.device}', records, threads=arguments.threads, device=arguments.device, seed=0
    )
    write_section(DOCUMENT, 'benchmarks/published_size.py', table(json.loads(path.read_text(encoding='utf-8'))))


if __name__ == '__main__':
    main()
