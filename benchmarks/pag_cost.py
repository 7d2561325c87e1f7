"""Measures the cost of a training step with aligned gradients, and the cost of a certificate over its forward passes.

    python benchmarks/pag_cost.py [--batch-size 8] [--rounds 5]

A PAG step differentiates each score twice, after a forward pass in eval mode. The form of regions has one score for an
image, with or without a teacher. The published form has one for each class of the step. The training methods take
turns, round by round. The numbers are medians of processor seconds over a clean step of the same model. A certificate
of n draws is compared with n forward passes in the same batches. The weights are random, as time does not depend on
them. The images are digit scenes, because the repainting of regions takes time too. Writes
benchmarks/results/pag_cost.json and the section of docs/evidence_gradients.md.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from experiments import ROOT, provenance, store, write_section
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.models.segmentors import EncoderDecoder
from mmseg.structures import SegDataSample
from torch import nn

from mmadv.datasets.digit_scenes import draw_scene
from mmadv.models.adapter import SegmentorAdapter
from mmadv.models.building import build_segmentor
from mmadv.models.pag_regions import RegionDistillation, RegionExemplars
from mmadv.models.pag_targets import BankRequest, Teacher, collect_regions
from mmadv.robustness import Certifier, ClassBank, OneImage

CONFIGS = {name: f'configs/pag/{name}_neighbour_digits.py' for name in ('pspnet', 'upernet', 'segmenter')}
# Form of a step -> its number of classes per step, or None for the forms of regions.
FORMS = {'regions': None, 'regions, teacher': None, '1 classes': 1, '2 classes': 2, '4 classes': 4}
SIDE, DRAWS, CERTIFICATES = 64, 128, 12


def build(config: str) -> nn.Module:
    """Returns a model with random weights, without the settings of the published form."""
    torch.manual_seed(0)
    settings = Config.fromfile(ROOT / config)
    settings.model.pag = dict(weight=settings.model.pag.weight)
    return build_segmentor(settings)


def pictures(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns training scenes and their label maps."""
    return [draw_scene('train', index) for index in range(count)]


def batch_of(model: nn.Module, count: int) -> tuple[torch.Tensor, list[SegDataSample]]:
    """Returns the network's input and data samples of a batch of scenes."""
    samples, images = [], []
    for image, label in pictures(count):
        sample = SegDataSample(metainfo=dict(ori_shape=label.shape, img_shape=label.shape))
        sample.gt_sem_seg = PixelData(data=torch.from_numpy(label.astype(np.int64))[None])
        samples.append(sample)
        images.append(torch.from_numpy(image.transpose(2, 0, 1).copy()))
    data = model.data_preprocessor({'inputs': images, 'data_samples': samples}, training=True)
    return data['inputs'], data['data_samples']


def targets_of(model: nn.Module) -> dict[str, Any]:
    """Returns form -> target; the teacher is a network of the same size."""
    classes = model.num_classes
    scene = torch.randint(0, 256, (classes, 1, 3, SIDE, SIDE), dtype=torch.uint8)
    published = OneImage(ClassBank(scene, torch.ones(classes, dtype=torch.int64)))
    bank = collect_regions(pictures(400), BankRequest(tuple(range(classes)), classes, 32, (32, 32)))
    regions = {
        'regions': RegionExemplars(bank),
        'regions, teacher': RegionDistillation(Teacher(copy.deepcopy(model)), bank),
    }
    return {form: regions.get(form, published) for form in FORMS}


def step(model: nn.Module, inputs: torch.Tensor, samples: list[SegDataSample], form: str, target: Any) -> None:
    """Makes the gradients of one training step; 'clean' is that of the stock segmentor."""
    model.zero_grad()
    if form == 'clean':
        losses = EncoderDecoder.loss(model, inputs, samples)
    else:
        model.set_pag_target(target)
        model.pag_classes_per_step = FORMS[form]
        losses = model.loss(inputs, samples)
    model.parse_losses(losses)[0].backward()


def seconds_of(call: Callable[[], Any]) -> float:
    """Returns the processor seconds of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def training_record(name: str, config: str, batch_size: int, rounds: int) -> dict[str, Any]:
    """Returns the seconds of a step, clean and in each form."""
    model = build(config).train()
    inputs, samples = batch_of(model, batch_size)
    targets = {'clean': None, **targets_of(model)}
    seconds: dict[str, list[float]] = {form: [] for form in targets}
    for turn in range(rounds + 1):
        for form, target in targets.items():
            spent = seconds_of(lambda form=form, target=target: step(model, inputs, samples, form, target))
            if turn:  # the first round warms up
                seconds[form].append(spent)
    return {'model': name, 'config': config, **{form: statistics.median(spent) for form, spent in seconds.items()}}


def certificate_record(rounds: int) -> dict[str, Any]:
    """Returns the seconds of a certificate, and of as many forward passes in the same batches."""
    model = build(CONFIGS['pspnet']).eval()
    _, (sample,) = batch_of(model, 1)
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
    path = store('pag_cost', records, certificate=certificate, batch_size=arguments.batch_size, rounds=arguments.rounds)
    content = json.loads(path.read_text(encoding='utf-8'))
    lines = [f'| model | clean step, s | {" | ".join(FORMS)} |', f'|---|---:|{"---:|" * len(FORMS)}']
    for record in records:
        cells = ' | '.join(f'{record[form] / record["clean"]:.1f}x' for form in FORMS)
        lines.append(f'| {record["model"]} (`{record["config"]}`) | {record["clean"]:.3f} | {cells} |')
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
