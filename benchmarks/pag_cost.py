"""Measures the cost of a training step with aligned gradients, and the cost of a certificate over its forward passes.

    python benchmarks/pag_cost.py [--batch-size 8] [--rounds 5]

A PAG step differentiates each class twice, after a forward pass in eval mode. So its cost should grow by a constant for
each class. The training methods take turns, round by round. The numbers are medians of processor seconds over a clean
step of the same model. A certificate of n draws is compared with n forward passes in the same batches. Weights and
images are random: time does not depend on them. Writes benchmarks/results/pag_cost.json and the section of
docs/evidence_gradients.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from experiments import ROOT, provenance, store, write_section
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.models.segmentors import EncoderDecoder
from mmseg.structures import SegDataSample
from torch import nn

from mmadv.models.adapter import SegmentorAdapter
from mmadv.models.building import build_segmentor
from mmadv.robustness import Certifier, ClassBank, OneImage

CONFIGS = {name: f'configs/pag/{name}_neighbour_digits.py' for name in ('pspnet', 'upernet', 'segmenter')}
CLASSES_PER_STEP = (1, 2, 4)
SIDE, DRAWS, CERTIFICATES = 64, 128, 12


def build(config: str) -> nn.Module:
    """Returns a model with random weights, and targets."""
    torch.manual_seed(0)
    model = build_segmentor(Config.fromfile(ROOT / config))
    bank = torch.randint(0, 256, (model.num_classes, 1, 3, SIDE, SIDE), dtype=torch.uint8)
    model.set_pag_target(OneImage(ClassBank(bank, torch.ones(model.num_classes, dtype=torch.int64))))
    return model


def random_samples(count: int, classes: int) -> list[SegDataSample]:
    """Returns samples with random labels."""
    samples = []
    for _ in range(count):
        size = (SIDE, SIDE)
        sample = SegDataSample(metainfo=dict(ori_shape=size, img_shape=size, padding_size=[0, 0, 0, 0]))
        sample.gt_sem_seg = PixelData(data=torch.randint(0, classes, (1, *size)))
        samples.append(sample)
    return samples


def step(model: nn.Module, inputs: torch.Tensor, samples: list[SegDataSample], classes: int) -> None:
    """Makes the gradients of one training step, of the stock segmentor where ``classes`` is 0."""
    model.zero_grad()
    model.pag_classes_per_step = classes
    losses = model.loss(inputs, samples) if classes else EncoderDecoder.loss(model, inputs, samples)
    model.parse_losses(losses)[0].backward()


def seconds_of(call: Callable[[], Any]) -> float:
    """Returns the processor seconds of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def training_record(name: str, config: str, batch_size: int, rounds: int) -> dict[str, Any]:
    """Returns the seconds of a step, clean and by number of classes."""
    model = build(config).train()
    inputs, samples = torch.randn(batch_size, 3, SIDE, SIDE), random_samples(batch_size, model.num_classes)
    seconds: dict[int, list[float]] = {classes: [] for classes in (0, *CLASSES_PER_STEP)}
    for turn in range(rounds + 1):
        for classes, spent in seconds.items():
            seconds_of_step = seconds_of(lambda classes=classes: step(model, inputs, samples, classes))
            if turn:  # the first round warms up
                spent.append(seconds_of_step)
    return {'model': name, 'config': config, **{f'{c} classes': statistics.median(s) for c, s in seconds.items()}}


def certificate_record(rounds: int) -> dict[str, Any]:
    """Returns the seconds of a certificate, and of as many forward passes in the same batches."""
    model = build(CONFIGS['pspnet']).eval()
    (sample,) = random_samples(1, model.num_classes)
    adapter, image = SegmentorAdapter(model, [sample]), torch.rand(3, SIDE, SIDE)
    certifier = Certifier(sigma=0.25, n0=16, n=DRAWS, alpha=0.05, taus=(0.75,), batch=16)
    batch = image.expand(16, -1, -1, -1).contiguous()

    @torch.no_grad()
    def bare() -> None:
        for _ in range((DRAWS + 16) // 16):
            adapter(batch)

    certified, forward = [], []
    for turn in range(rounds + 1):
        spent = seconds_of(lambda: certifier(adapter, image)), seconds_of(bare)
        if turn:
            certified.append(spent[0])
            forward.append(spent[1])
    return {
        'draws': DRAWS + 16,
        'rounds': rounds,
        **{name: statistics.median(spent) for name, spent in (('certificate', certified), ('forward', forward))},
        **{f'least_{name}': min(spent) for name, spent in (('certificate', certified), ('forward', forward))},
    }


def main() -> None:
    """Measures everything, and writes the section."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--rounds', type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    records = [training_record(*item, arguments.batch_size, arguments.rounds) for item in CONFIGS.items()]
    certificate = certificate_record(CERTIFICATES)
    path = store('pag_cost', records, certificate=certificate, batch_size=arguments.batch_size)
    content = json.loads(path.read_text(encoding='utf-8'))
    header = ' | '.join(f'{classes} classes' for classes in CLASSES_PER_STEP)
    lines = [f'| model | clean step, s | {header} |', f'|---|---:|{"---:|" * len(CLASSES_PER_STEP)}']
    for record in records:
        cells = ' | '.join(f'{record[f"{c} classes"] / record["0 classes"]:.1f}x' for c in CLASSES_PER_STEP)
        lines.append(f'| {record["model"]} (`{record["config"]}`) | {record["0 classes"]:.3f} | {cells} |')
    overhead = 100 * (certificate['certificate'] / certificate['forward'] - 1)
    # The least of the rounds is that which other work on the machine disturbed the least.
    least = 100 * (certificate['least_certificate'] / certificate['least_forward'] - 1)
    text = (
        f'{chr(10).join(lines)}\n\nA certificate of {certificate["draws"]} draws of PSPNet at {SIDE}x{SIDE}: '
        f'{certificate["least_certificate"]:.2f} s, {least:+.1f} % over the {certificate["least_forward"]:.2f} s of as '
        f'many forward passes in the same batches, the least of {certificate["rounds"]} rounds each; by medians '
        f'{overhead:+.1f} %. Batch {arguments.batch_size}, steps as medians of {arguments.rounds} rounds of '
        f'processor time; {provenance(content)}\n\n```bash\npython benchmarks/pag_cost.py\n```'
    )
    write_section(ROOT / 'docs/evidence_gradients.md', 'benchmarks/pag_cost.py', text)
    print(text)


if __name__ == '__main__':
    main()
