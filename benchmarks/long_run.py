"""Runs tools/test.py over 20,000 tiny images with a one-step attack; checks that memory stays flat and nothing is lost.

    python benchmarks/long_run.py

The script writes images (16x16, made at random) and a small network with random weights to the work folder. While the
command runs, the script samples its resident memory and the number of images in its store. It reports how much the
memory grows from the first twentieth of the images to the last. It also reports how far the memory rises above that at
the end of the run, when the metrics are computed from all counts. Writes benchmarks/results/long_run.json and the
section of docs/evidence_attacks.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments import ROOT, provenance, store, write_section
from mmengine.config import Config
from mmseg.utils import register_all_modules
from PIL import Image

from mmadv.evaluation.result_store import read_records
from mmadv.models.building import build_segmentor

SIZE, CLASSES, BATCH = 16, 4, 50
WARM_UP = 0.05
LIMIT = 0.05
CONFIG = """
custom_imports = dict(imports=['mmadv'])
default_scope = 'mmseg'
names = [str(k) for k in range({classes})]
test_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='BaseSegDataset', data_root={root!r}, data_prefix=dict(img_path='images', seg_map_path='labels'),
        img_suffix='.png', metainfo=dict(classes=names, palette=[[60 * k, 0, 0] for k in range({classes})]),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')],
    ),
)
norm_cfg = dict(type='BN')
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[127.5] * 3, std=[60.0] * 3, bgr_to_rgb=True, size=({size}, {size})
    ),
    backbone=dict(
        type='ResNet', depth=18, base_channels=8, stem_channels=8, num_stages=1, out_indices=(0,), strides=(1,),
        dilations=(1,), norm_cfg=norm_cfg,
    ),
    decode_head=dict(
        type='FCNHead', in_channels=8, in_index=0, channels=8, num_convs=1, num_classes={classes}, norm_cfg=norm_cfg,
    ),
    test_cfg=dict(mode='whole'),
)
"""


def write_project(folder: Path, images: int) -> None:
    """Writes data/, config.py and weights.pth; files that are there stay, as the same seed makes the same."""
    for part in ('images', 'labels'):
        (folder / 'data' / part).mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for n in range(images):
        label = generator.integers(0, CLASSES, (4, 4), dtype=np.uint8).repeat(SIZE // 4, 0).repeat(SIZE // 4, 1)
        noise = generator.integers(0, 40, (SIZE, SIZE, 3), dtype=np.uint8)
        if not (folder / f'data/labels/{n:06d}.png').is_file():
            Image.fromarray(label[:, :, None] * np.uint8(50) + noise).save(folder / f'data/images/{n:06d}.png')
            Image.fromarray(label).save(folder / f'data/labels/{n:06d}.png')
    config = folder / 'config.py'
    config.write_text(CONFIG.format(root=str(folder / 'data'), size=SIZE, classes=CLASSES), encoding='utf-8')
    register_all_modules()
    torch.manual_seed(0)
    model = build_segmentor(Config.fromfile(str(config)))
    torch.save({'state_dict': model.state_dict()}, folder / 'weights.pth')


def measured(folder: Path, interval: float) -> tuple[int, list[tuple[int, int]]]:
    """Runs the command, and returns its exit status and samples of (images in the store, resident bytes)."""
    out = folder / 'out'
    shutil.rmtree(out, ignore_errors=True)
    command = ['tools/test.py', str(folder / 'config.py'), str(folder / 'weights.pth'), '--attack', 'fgsm']
    command += ['--eps', '8/255', '--batch-size', str(BATCH), '--show', '2', '--out', str(out)]
    with (folder / 'log').open('w', encoding='utf-8') as log:
        process = subprocess.Popen([sys.executable, '-W', 'ignore', *command], cwd=ROOT, stdout=log, stderr=log)
        samples = []
        while process.poll() is None:
            time.sleep(interval)
            done = sum(lines_of(path) - 1 for path in (out / 'unfinished').glob('records-*.jsonl'))
            resident = resident_bytes(process.pid)
            if resident:
                samples.append((done, resident))
    return process.returncode, samples


def lines_of(path: Path) -> int:
    """Returns the number of lines of a file, 0 where it is gone."""
    try:
        return path.read_bytes().count(b'\n')
    except OSError:
        return 0


def resident_bytes(process: int) -> int:
    """Returns the resident memory of a process, 0 once it has ended."""
    try:
        lines = Path(f'/proc/{process}/status').read_text(encoding='utf-8').splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith('VmRSS:')), 0)


def judged(folder: Path, images: int, status: int, samples: list[tuple[int, int]]) -> dict[str, Any]:
    """Returns what the run shows: memory early, late and at the end, and whether every image is there once."""
    if status:
        raise SystemExit(f'the command failed with status {status}; see {folder / "log"}')
    _, records = read_records(folder / 'out' / 'records.jsonl')
    early = [resident for done, resident in samples if WARM_UP * images <= done < 2 * WARM_UP * images]
    late = [resident for done, resident in samples if (1 - WARM_UP) * images <= done < images]
    if not early or not late:
        raise SystemExit('too few samples of the memory; give more images or a shorter --interval')
    begin, end = float(np.median(early)), float(np.median(late))
    results = json.loads((folder / 'out' / 'results.json').read_text(encoding='utf-8'))
    return {
        'images': images,
        'nothing_lost': [record['index'] for record in records] == list(range(images))
        and results['evaluation']['images'] == images,
        'memory_early': begin,
        'memory_late': end,
        'growth': end / begin - 1,
        'peak_over_early': max(resident for _, resident in samples) / begin - 1,
        'flat': end / begin - 1 <= LIMIT,
        'seconds': results['seconds']['total'],
        'samples': samples[:: max(1, len(samples) // 200)],
    }


def text_of(record: dict[str, Any], content: dict[str, Any]) -> str:
    """Returns the Markdown text of the section."""
    lost = 'every image is in the results once' if record['nothing_lost'] else '**images are missing**'
    return (
        f'{record["images"]} images of {SIZE}x{SIZE} under FGSM in batches of {BATCH}: {lost}; resident memory '
        f'{record["memory_early"] / 1e6:.0f} MB after the first twentieth of the images and '
        f'{record["memory_late"] / 1e6:.0f} MB at the last ({100 * record["growth"]:+.1f} %), '
        f'{100 * record["peak_over_early"]:+.1f} % at its highest, when all numbers are made; '
        f'{record["seconds"]:.0f} s, beside other work. {provenance(content)}\n\n'
        '```bash\npython benchmarks/long_run.py\n```'
    )


def main() -> int:
    """Returns 0 where memory is flat within five percent and nothing is lost, else 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=20000)
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/long_run'))
    parser.add_argument('--interval', type=float, default=1.0, help='seconds between samples (default: 1)')
    parser.add_argument('--dry', action='store_true', help='print the result; write no files of the project')
    arguments = parser.parse_args()
    folder = (ROOT / arguments.work_dir).resolve()
    write_project(folder, arguments.images)
    record = judged(folder, arguments.images, *measured(folder, arguments.interval))
    print(json.dumps({key: value for key, value in record.items() if key != 'samples'}, indent=1))
    if not arguments.dry:
        content = json.loads(store('long_run', [record]).read_text(encoding='utf-8'))
        write_section(ROOT / 'docs/evidence_attacks.md', 'benchmarks/long_run.py', text_of(record, content))
    return 0 if record['flat'] and record['nothing_lost'] else 1


if __name__ == '__main__':
    sys.exit(main())
