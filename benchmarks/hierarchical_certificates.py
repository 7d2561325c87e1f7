"""Measures certificates with a hierarchy of classes beside the flat certificate, for docs/smoothing.md.

    python benchmarks/hierarchical_certificates.py CONFIG CHECKPOINT --sigma 0.12
    python benchmarks/hierarchical_certificates.py --stored

Test images, spread evenly over the data, are certified with the hierarchy. The flat certificate is its finest level.
The first images are also certified without the hierarchy: the script compares the two bit by bit, and times both.
Writes benchmarks/results/hierarchical_certificates.json and the section of the page. ``--stored`` writes the section
alone.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments import RESULTS, ROOT, provenance, store, write_section
from mmengine.config import Config
from mmseg.utils import register_all_modules
from torch import Tensor

from mmadv.attacks import derive_seed
from mmadv.checkpoints.loading import file_sha256, load_weights
from mmadv.engine.data import Selection, build_dataset, evenly_spaced
from mmadv.models.adapter import SegmentorAdapter, stack_images, stack_labels
from mmadv.models.building import build_segmentor
from mmadv.robustness import Certifier, Hierarchy
from mmadv.robustness.certification import level_counts

STUDY = 'hierarchical_certificates'
HIERARCHY = 'configs/_base_/hierarchies/camvid.py'
# With fewer draws, no pixel of an image of 360x480 could be certified at the largest share.
N0, DRAWS, ALPHA, TAUS = 10, 200, 0.001, (0.6, 0.75, 0.9)


def timed(certifier: Certifier, model: SegmentorAdapter, image: Tensor, seed: int) -> tuple[Any, float]:
    """Returns the certificate of an image, and the seconds that it took."""
    start = time.perf_counter()
    certificate = certifier(model, image, seed=seed)  # its arrays are on the CPU, so the device is done
    return certificate, time.perf_counter() - start


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the record of the study."""
    register_all_modules()
    config = Config.fromfile(arguments.config)
    segmentor = build_segmentor(config)
    load_weights(segmentor, arguments.checkpoint)
    segmentor.to(arguments.device).eval()
    dataset = build_dataset(config.test_dataloader.dataset, 'test_dataloader.dataset')
    levels = [dict(level) for level in Config.fromfile(ROOT / HIERARCHY).hierarchy]
    hierarchy = Hierarchy(tuple(dataset.metainfo['classes']), levels)
    flat = Certifier(sigma=arguments.sigma, n0=N0, n=DRAWS, alpha=ALPHA, taus=TAUS, batch=arguments.batch_size)
    both = replace(flat, hierarchy=hierarchy)
    rows, seconds, pixels = [], [], 0
    for number, data in enumerate(Selection(dataset, evenly_spaced(len(dataset), arguments.images))):
        sample = data['data_samples']
        model = SegmentorAdapter(segmentor, [sample])
        image = stack_images([data['inputs']], [sample])[0].to(arguments.device)
        labels = stack_labels([sample])[0].numpy()
        seed = derive_seed('certify', 0, sample.metainfo['image_name'])
        certificate, taken = timed(both, model, image, seed)
        if number < arguments.timed:
            alone, taken_alone = timed(flat, model, image, seed)
            if not np.array_equal(alone.certified, certificate.certified):
                raise SystemExit(f'error: the flat certificate of image {number} is not the finest level')
            seconds.append([taken_alone, taken])
        ignored = model.ignore_index
        rows.append([level_counts(certificate.classes, one, labels, hierarchy, ignored) for one in certificate.levels])
        pixels += int((labels != ignored).sum())
        print(f'image {number + 1} of {arguments.images}: {taken:.1f} s', flush=True)
    shares = np.sum(rows, axis=0) / pixels  # (taus, levels, 3)
    radii = [
        {'tau': tau, 'radius': radius, 'levels': each.tolist()}
        for tau, radius, each in zip(TAUS, both.radii, shares, strict=True)
    ]
    return {'config': arguments.config, 'checkpoint': file_sha256(arguments.checkpoint), 'sigma': arguments.sigma,
            'images': arguments.images, 'levels': levels, 'radii': radii, 'seconds': seconds}  # fmt: skip


def table(record: dict[str, Any]) -> str:
    """Returns the Markdown table, in percent."""
    coarser = range(1, len(record['levels']) + 1)
    names = ['L2 radius', 'τ', 'certified', 'abstained', *(f'certified at level {n}' for n in coarser)]
    names += ['abstained at all levels', 'information gain, flat', 'with hierarchy']
    lines = [f'| {" | ".join(names)} |', f'|{"---:|" * len(names)}']
    for one in record['radii']:
        certified, right, gain = np.array(one['levels']).T
        shares = [certified[0], 1 - certified[0], *certified[1:], 1 - certified.sum(), right[0], gain.sum()]
        cells = [f'{one["radius"]:.3f}', f'{one["tau"]:g}', *(f'{100 * share:.1f}' for share in shares)]
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)


def section(content: dict[str, Any]) -> str:
    """Returns the section of the page."""
    (record,) = content['records']
    flat, both = np.sum(record['seconds'], axis=0)
    return (
        f'{table(record)}\n\n{record["images"]} images, `{record["config"]}`, σ = {record["sigma"]:g}, n0 = {N0}, '
        f'n = {DRAWS}, α = {ALPHA:g} for each image (Clopper-Pearson, Holm), hierarchy `{HIERARCHY}`. Throughput with '
        f'the hierarchy: {flat / both:.2f} times that of the flat certificate, on {len(record["seconds"])} images. '
        f'{provenance(content)}'
    )


def main() -> None:
    """Measures, or reads what is stored, and writes the section."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', nargs='?')
    parser.add_argument('checkpoint', nargs='?')
    parser.add_argument('--sigma', type=float, default=0.12)
    parser.add_argument('--images', type=int, default=10)
    parser.add_argument('--timed', type=int, default=2, help='images that are certified without the hierarchy, too')
    parser.add_argument('--batch-size', type=int, default=4)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--stored', action='store_true', help='write the section from the stored record')
    arguments = parser.parse_args()
    if not arguments.stored:
        if arguments.checkpoint is None or not 1 <= arguments.timed <= arguments.images:
            parser.error('give a config and a checkpoint, and 1 to --images timed images')
        torch.set_num_threads(1)
        store(STUDY, [measure(arguments)])
    text = section(json.loads((RESULTS / f'{STUDY}.json').read_text(encoding='utf-8')))
    write_section(Path(ROOT / 'docs/smoothing.md'), f'benchmarks/{STUDY}.py', text)
    print(text)


if __name__ == '__main__':
    main()
