"""Measures how much points of the published protocol of SEA move numbers, on ESPNet's public weights.

    python projects/espnet/convert.py WEIGHTS.pth work_dirs/espnet/espnet_camvid.pth
    python benchmarks/protocol_differences.py

The model is attacked by the later SEA on eight images of CamVid at 320x240, three times: resized with PIL's antialiased
bilinear filter and void pixels ignored; resized with OpenCV's bilinear filter; and with void pixels as a class. Two
more differences are within the first run: all pixels against the mean over images, and the mIoU of the worst case by
accuracy against the greedy one. The runs lie in work_dirs/protocol_differences and are resumed. The records go to
benchmarks/results/protocol_differences.json, and a table to docs/published.md. ``--stored`` only writes the table.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from experiments import RESULTS, ROOT, provenance, store, write_section
from mmengine.config import Config

from mmadv.commands.testing import run_test
from mmadv.report import load_results

PROJECT = ROOT / 'projects/espnet'
CONFIG = PROJECT / 'configs/espnet_camvid.py'
CHECKPOINT = ROOT / 'work_dirs/espnet/espnet_camvid.pth'
FOLDER = ROOT / 'work_dirs/protocol_differences'
PUBLISHED, OPENCV, VOID = 'published', 'opencv', 'void'
WIDTH, HEIGHT = 320, 240
# CamVid has no background class; another class stands for it.
VOID_CLASS, VOID_NAME = 1, 'building'
EPS, ITERATIONS, IMAGES = '1/255', 30, 8
NUMBERS = ('aAcc', 'aAcc_image_mean', 'mIoU')


def pipelines() -> dict[str, list[dict[str, Any]]]:
    """Returns the test pipeline of every run."""
    load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
    end = [dict(type='ScoreAtInputSize'), dict(type='PackSegInputs')]
    antialiased = dict(type='ResizeShortSide', size=HEIGHT)
    return {
        PUBLISHED: [*load, antialiased, *end],
        OPENCV: [*load, dict(type='Resize', scale=(WIDTH, HEIGHT)), *end],
        VOID: [*load, dict(type='VoidToClass', label=VOID_CLASS), antialiased, *end],
    }


def evaluate(name: str, pipeline: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the numbers of one run, clean and attacked."""
    config = Config.fromfile(CONFIG)
    config.test_dataloader.dataset.pipeline = list(pipeline)
    config.test_dataloader.update(num_workers=0, persistent_workers=False)
    FOLDER.mkdir(parents=True, exist_ok=True)
    path, out = FOLDER / f'{name}.py', FOLDER / name
    config.dump(path)
    options = {'eps': EPS, 'iterations': ITERATIONS, 'limit': IMAGES, 'seed': 0, 'show': 0, 'out': out}
    words = [str(word) for option, value in options.items() for word in (f'--{option}', value)]
    status = run_test([str(path), str(CHECKPOINT), '--attack', 'sea-eccv', *words, *['--resume'] * out.exists()])
    if status:
        raise SystemExit(status)
    evaluation = load_results(out)['evaluation']
    worst = evaluation['attacked'][EPS]['worst_case']
    return {
        'run': name,
        'clean': {key: evaluation['clean'][key] for key in NUMBERS},
        'attacked': {key: worst[key] for key in (*NUMBERS, 'mIoU_greedy')},
    }


def differences(records: Sequence[Mapping[str, Any]]) -> list[tuple[str, float | None, float]]:
    """Returns the name of each departure from the published protocol, and its clean and attacked effect in points."""
    by_name = {record['run']: record for record in records}
    base = by_name[PUBLISHED]
    rows: list[tuple[str, float | None, float]] = []
    for name, text in (
        (OPENCV, "mIoU with OpenCV's bilinear filter in place of PIL's"),
        (VOID, f'mIoU with void pixels as {VOID_NAME}, not ignored'),
    ):
        clean, attacked = (100 * (by_name[name][part]['mIoU'] - base[part]['mIoU']) for part in ('clean', 'attacked'))
        rows.append((text, clean, attacked))
    totals = [100 * (base[part]['aAcc'] - base[part]['aAcc_image_mean']) for part in ('clean', 'attacked')]
    rows.append(('accuracy over all pixels in place of the mean over images', *totals))
    greedy = 100 * (base['attacked']['mIoU'] - base['attacked']['mIoU_greedy'])
    return [*rows, ('mIoU of the worst case by accuracy in place of the greedy one', None, greedy)]


def table(content: Mapping[str, Any]) -> str:
    """Returns the Markdown of stored results."""
    base = next(record for record in content['records'] if record['run'] == PUBLISHED)
    clean, worst = base['clean'], base['attacked']
    return '\n'.join(
        [
            '| difference, in points | clean | attacked |',
            '|---|---:|---:|',
            *(
                f'| {name} | {"" if clean is None else f"{clean:+.1f}"} | {attacked:+.1f} |'
                for name, clean, attacked in differences(content['records'])
            ),
            '',
            f'By the published protocol the model has {100 * clean["aAcc_image_mean"]:.1f} % accuracy and '
            f'{100 * clean["mIoU"]:.1f} % mIoU; under attack {100 * worst["aAcc_image_mean"]:.1f} % and '
            f'{100 * worst["mIoU_greedy"]:.1f} % (greedy). ESPNet with its public weights; {content["images"]} images '
            f'of CamVid at {content["size"]}; the later SEA at {content["eps"]} with {content["iterations"]} '
            f'iterations of each loss, seed {content["seed"]}. {provenance(content)}',
        ]
    )


def main() -> None:
    """Runs the attacks that are not stored yet, stores the records and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--stored', action='store_true', help='run nothing; write the table from the stored records')
    path = RESULTS / 'protocol_differences.json'
    if not parser.parse_args().stored:
        torch.set_num_threads(1)
        sys.path.insert(0, str(PROJECT))
        records = [evaluate(name, pipeline) for name, pipeline in pipelines().items()]
        settings = {'size': f'{WIDTH}x{HEIGHT}', 'eps': EPS, 'iterations': ITERATIONS, 'images': IMAGES, 'seed': 0}
        path = store('protocol_differences', records, **settings)
    content = json.loads(path.read_text(encoding='utf-8'))
    write_section(ROOT / 'docs/published.md', 'benchmarks/protocol_differences.py', table(content))


if __name__ == '__main__':
    main()
