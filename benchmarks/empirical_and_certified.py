"""Compares empirical accuracy under SEA in L2 with certified accuracy, for one smoothed model at the same radii.

    python benchmarks/empirical_and_certified.py --start demo_output/pspnet_clean_digits/training/iter_200.pth

The demo's PSPNet is trained further with Gaussian noise on its images (configs/demo/pspnet_gaussian_digits.py) and
smoothed by the same noise. The certified accuracy is a lower bound of the accuracy under any attack within the radius.
It uses hard smoothing, Clopper-Pearson, and Bonferroni over pixels, so that all radii hold at once. The accuracy under
SEA is an upper bound. SEA takes gradients of the soft smoothed model with fresh noise in every pass, and the hard
smoothed model judges its result. The script ends with an error if the lower bound is above the upper bound, in accuracy
or mIoU. Finished attacks do not run again. Writes benchmarks/results/empirical_and_certified.json, the section of
docs/smoothing.md and docs/images/empirical_and_certified.png.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments import RESULTS, ROOT, Run, Stage, provenance, run, store, write_section
from matplotlib.figure import Figure
from mmengine.config import Config
from mmseg.utils import register_all_modules
from torch import Tensor

from mmadv.attacks import derive_seed, sea
from mmadv.checkpoints.loading import load_weights
from mmadv.engine.data import Selection, build_dataset, evenly_spaced
from mmadv.models.adapter import SegmentorAdapter, stack_images, stack_labels
from mmadv.models.building import build_segmentor
from mmadv.robustness import Certifier, Counts, SmoothedModel, certified_counts, count, metrics, worst_iou

STUDY = 'empirical_and_certified'
CONFIG, ITERATIONS, SIGMA = 'configs/demo/pspnet_gaussian_digits.py', 200, 0.12
TAUS = (0.6, 0.75, 0.9, 0.96)
# The most that n draws can certify for 64x64 pixels at alpha is a tau of about 0.963.
CERTIFIER = Certifier(sigma=SIGMA, n0=10, n=400, alpha=0.001, taus=TAUS, correction='bonferroni', batch=32)
SEA_ITERATIONS, ATTACK_DRAWS, JUDGING_DRAWS = 10, 4, 50


def training(work_dir: Path, start: str) -> Run:
    """Returns the training of the model."""
    command = ('tools/train.py', CONFIG, '--work-dir', str(work_dir), '--cfg-options', f'load_from={start}')
    return Run('training', (Stage(command, work_dir / f'iter_{ITERATIONS}.pth'),))


def load(weights: Path, number: int) -> tuple[SegmentorAdapter, Tensor, Tensor, list[str]]:
    """Returns the model, and images (N, C, h, w), labels (N, H, W) and names from its test data."""
    register_all_modules()
    config = Config.fromfile(ROOT / CONFIG)
    segmentor = build_segmentor(config)
    load_weights(segmentor, str(weights))
    dataset = build_dataset(config.test_dataloader.dataset, 'test_dataloader.dataset')
    read = list(Selection(dataset, evenly_spaced(len(dataset), number)))
    samples = [data['data_samples'] for data in read]
    images = stack_images([data['inputs'] for data in read], samples)
    names = [sample.metainfo['image_name'] for sample in samples]
    return SegmentorAdapter(segmentor.eval(), samples), images, stack_labels(samples), names


def judged(model: SegmentorAdapter, images: Tensor, names: list[str]) -> Tensor:
    """Returns what the hard smoothed model predicts, (N, H, W), by draws that no attack has seen."""
    seeds = [derive_seed('judge', name) for name in names]
    smoothed = SmoothedModel(model, sigma=SIGMA, samples=JUDGING_DRAWS, output='hard', seed=1, image_seeds=seeds)
    with torch.no_grad():
        return smoothed(images).argmax(1)


def attacked(model: SegmentorAdapter, images: Tensor, labels: Tensor, names: list[str], radius: float) -> Tensor:
    """Returns the predictions that are left of SEA's worst case for each image, (N, H, W)."""
    smoothed = SmoothedModel(model, sigma=SIGMA, samples=ATTACK_DRAWS, output='soft', noise='fresh', draws_per_pass=4)
    seeds = [derive_seed('attack', name) for name in names]
    result = sea(radius, SEA_ITERATIONS, threat='L2')(smoothed, images, labels, seeds=seeds)
    predictions = torch.stack([judged(model, member.images, names) for member in result.members.values()])
    valid = labels != model.ignore_index
    correct = ((predictions == labels) & valid).flatten(2).sum(2)
    return predictions[correct.argmin(0), torch.arange(len(images))]


def measure(weights: Path, number: int, known: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns one record for each radius, the clean one first, and stores them as they are made.

    Args:
        weights: of the model.
        number: of images.
        known: records of an earlier run with these images, whose attacks are not run again.
    """
    model, images, labels, names = load(weights, number)
    classes, truth = model.num_classes, labels.numpy()
    certificates = [
        CERTIFIER(model, image, seed=derive_seed('certify', name)) for image, name in zip(images, names, strict=True)
    ]

    def numbers(predictions: Tensor) -> dict[str, Any]:
        values = metrics(count(predictions.numpy(), truth, classes, model.ignore_index))
        return {key: float(values[key]) for key in ('aAcc', 'mIoU')}

    selected = np.stack([certificate.classes for certificate in certificates])
    valid = truth != model.ignore_index
    stored = {record['radius']: record for record in known}
    records = [stored.get(0.0) or {'radius': 0.0, 'tau': None, 'empirical': numbers(judged(model, images, names))}]
    for t, (tau, radius) in enumerate(zip(TAUS, CERTIFIER.radii, strict=True)):
        held = np.stack([certificate.certified[t] for certificate in certificates])
        record = stored.get(radius)
        if record is None:
            start = time.process_time()
            predictions = attacked(model, images, labels, names, radius)
            changed = int((held & valid & (predictions.numpy() != selected)).sum())
            record = {'radius': radius, 'tau': tau, 'empirical': numbers(predictions)}
            record |= {'certified_pixels_changed': changed, 'seconds': round(time.process_time() - start, 1)}
        each = [
            certified_counts(*image, classes, model.ignore_index) for image in zip(selected, held, truth, strict=True)
        ]
        counts = Counts.concatenate([part for part, _ in each])
        abstained = np.concatenate([part for _, part in each])
        # The mIoU of certified pixels alone bounds nothing: pixels without a class spoil no other class' union.
        guaranteed = float(np.nanmean(worst_iou(counts, abstained)))
        record['certified'] = {'aAcc': float(metrics(counts)['aAcc']), 'mIoU': guaranteed}
        record['abstained'] = float(abstained.sum() / valid.sum())
        print(json.dumps(record), flush=True)
        if any(record['certified'][key] > record['empirical'][key] for key in ('aAcc', 'mIoU')):
            raise SystemExit(f'error: what is certified is above what an attack left, which it bounds: {record}')
        records.append(record)
        store(STUDY, records, images=number)
    return records


def table(records: list[dict[str, Any]]) -> str:
    """Returns the Markdown table, in percent."""

    def cells(record: dict[str, Any], key: str) -> list[str]:
        return [
            '-' if record[kind] is None else f'{100 * record[kind][key]:.1f}' for kind in ('certified', 'empirical')
        ]

    lines = [
        '| L2 radius | τ | certified accuracy | accuracy under SEA | guaranteed mIoU | mIoU under SEA | abstained |',
        '|---:|---:|---:|---:|---:|---:|---:|',
    ]
    for record in records:
        numbers = [*cells(record, 'aAcc'), *cells(record, 'mIoU')]
        tau = '-' if record['tau'] is None else f'{record["tau"]:g}'
        abstained = '-' if record['tau'] is None else f'{100 * record["abstained"]:.1f}'
        lines.append(f'| {record["radius"]:.3f} | {tau} | {" | ".join(numbers)} | {abstained} |')
    return '\n'.join(lines)


def draw(records: list[dict[str, Any]], path: Path) -> None:
    """Writes the plot: both accuracies, and both mIoU, against the radius."""
    figure = Figure(figsize=(9, 3.6), layout='constrained')
    for axes, key, title in zip(figure.subplots(1, 2), ('aAcc', 'mIoU'), ('accuracy, %', 'mIoU, %'), strict=True):
        for kind, label, style in (('empirical', 'under SEA', 'o-'), ('certified', 'certified', 's--')):
            points = [(record['radius'], 100 * record[kind][key]) for record in records if record.get(kind)]
            axes.plot(*zip(*points, strict=True), style, label=label)
        axes.set_xlabel('L2 radius, images in [0, 1]')
        axes.set_title(title)
        axes.set_ylim(0, 100)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=90)


def main() -> None:
    """Trains if need be, measures, and writes the section."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--start', default='demo_output/pspnet_clean_digits/training/iter_200.pth')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/empirical_and_certified'))
    parser.add_argument('--images', type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    work_dir = arguments.work_dir.resolve()
    trained = training(work_dir, str(Path(arguments.start).resolve()))
    run([trained], work_dir / 'logs', 1)
    path = RESULTS / f'{STUDY}.json'
    earlier = json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {}
    known = earlier['records'] if earlier.get('images') == arguments.images else []
    records = measure(trained.stages[0].done, arguments.images, known)
    content = json.loads(path.read_text(encoding='utf-8'))
    draw(content['records'], ROOT / 'docs/images/empirical_and_certified.png')
    changed = sum(record.get('certified_pixels_changed', 0) for record in records)
    text = (
        f'{table(content["records"])}\n\n{arguments.images} scenes of 64x64 pixels, `{CONFIG}`, seed 0, σ = {SIGMA:g}: '
        f'{CERTIFIER.n} draws certify, α = {CERTIFIER.alpha:g} for each image. SEA in L2 with {SEA_ITERATIONS} '
        f'iterations for each of four losses, the gradient of each over {ATTACK_DRAWS} fresh draws; what it found is '
        f'judged by {JUDGING_DRAWS} others. Guaranteed mIoU: were all abstained pixels of other labels predicted as a '
        f'class, for each class. Of all certified pixels, {changed} changed under attack. '
        f'{provenance(content)}\n\n'
        '![Certified accuracy below accuracy under attack](images/empirical_and_certified.png)\n\n'
        '```bash\npython benchmarks/empirical_and_certified.py\n```'
    )
    write_section(ROOT / 'docs/smoothing.md', 'benchmarks/empirical_and_certified.py', text)
    print(text)


if __name__ == '__main__':
    main()
