"""Measures what ``--sweep shared`` saves and what it does to the strength of auto, for docs/evaluation.md.

    python benchmarks/radius_sweep.py
    python benchmarks/radius_sweep.py --table

Each model is attacked at four radii, once at each radius by itself and once as a shared sweep, with the same noise.
Every finished sweep is stored at once in benchmarks/results/radius_sweep.json. Stored sweeps do not run again.
``--table`` writes the table into docs/evaluation.md and runs nothing.

The models are those of benchmarks/annealed_margin.py, which names the commands that train them. A model without its
checkpoint is named and left out.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from annealed_margin import CASES, Case
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmseg.utils import register_all_modules

from mmadv.attacks import auto
from mmadv.checkpoints.loading import file_sha256, load_weights
from mmadv.commands.provenance import hardware, versions
from mmadv.engine.data import Selection, build_dataset
from mmadv.engine.predictor import Predictor, accuracy
from mmadv.engine.spec import SWEEPS, EvaluationSpec
from mmadv.models.building import build_segmentor

ROOT = Path(__file__).parents[1]
PATH = ROOT / 'benchmarks/results/radius_sweep.json'
PAGE = ROOT / 'docs/evaluation.md'
SCHEMA, SCHEMA_VERSION = 'mmadv/radius-sweep', 1
BEGIN, END = '<!-- sweep: written by benchmarks/radius_sweep.py -->', '<!-- sweep: end -->'
MODELS = ('pspnet_at_8', 'pspnet_clean_8', 'segmenter_clean_8')
RADII = ('2/255', '4/255', '8/255', '12/255')
PASSES, SEED = 100, 0


def sweep(case: Case, kind: str) -> dict[str, Any]:
    """Returns the accuracies and passes of each image at each radius, from one sweep of a kind."""
    config = Config.fromfile(ROOT / case.config)
    model = build_segmentor(config).eval()
    load_weights(model, ROOT / case.checkpoint)
    dataset = build_dataset(config.test_dataloader.dataset, 'test_dataloader.dataset')
    selection = Selection(dataset, case.images)
    batch = pseudo_collate([selection[i] for i in range(len(selection))])
    spec = EvaluationSpec(attack=auto(RADII[0], PASSES), radii=RADII, seed=SEED, sweep=kind)
    predictor = Predictor.of(spec, model, dataset.metainfo['classes'], model.decode_head.ignore_index)
    start = time.process_time()
    with torch.no_grad():
        group = predictor(batch['inputs'], batch['data_samples'])
    radii = {
        radius: {
            'accuracy': accuracy(outcome.worst, group.labels, group.ignore_index).tolist(),
            'forward': outcome.forward_passes.tolist(),
            'backward': outcome.backward_passes.tolist(),
        }
        for radius, outcome in group.attacked.items()
    }
    return {
        'checkpoint': file_sha256(ROOT / case.checkpoint),
        'title': case.title,
        'images': list(group.names),
        'clean': accuracy(group.clean, group.labels, group.ignore_index).tolist(),
        'radii': radii,
        'cpu_seconds': round(time.process_time() - start, 1),
        'date': datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def stored() -> dict[str, Any]:
    """Returns the stored results, or results without a sweep."""
    if PATH.is_file():
        return json.loads(PATH.read_text(encoding='utf-8'))
    settings = {'attack': 'auto', 'passes': PASSES, 'seed': SEED, 'radii': list(RADII)}
    facts = {'hardware': hardware(), 'versions': versions()}
    return {'schema': SCHEMA, 'schema_version': SCHEMA_VERSION, **settings, **facts, 'sweeps': {}}


def run() -> None:
    """Runs and stores the sweeps that are not stored yet."""
    record = stored()
    for name in MODELS:
        if not (ROOT / CASES[name].checkpoint).is_file():
            print(f'{name}: no checkpoint {CASES[name].checkpoint}; left out', flush=True)
            continue
        for kind in SWEEPS:
            sweeps = record['sweeps'].setdefault(name, {})
            if kind not in sweeps:
                sweeps[kind] = sweep(CASES[name], kind)
                temporary = PATH.with_suffix('.tmp')
                temporary.write_text(json.dumps(record, indent=1) + '\n', encoding='utf-8')
                os.replace(temporary, PATH)
                print(f'{name}, {kind}: {sweeps[kind]["cpu_seconds"]} s', flush=True)


def table(record: dict[str, Any]) -> str:
    """Returns the table of the page: accuracies at each radius, and the passes of all radii together."""
    lines = [
        f'| model | sweep | clean | {" | ".join(record["radii"])} | passes per image |',
        f'| --- | --- | ---: |{" ---: |" * len(record["radii"])} ---: |',
    ]
    for sweeps in record['sweeps'].values():
        for kind, one in sweeps.items():
            columns = [mean(one['clean']), *(mean(one['radii'][radius]['accuracy']) for radius in record['radii'])]
            passes = sum(sum(part['forward']) for part in one['radii'].values()) / len(one['images'])
            cells = ' | '.join(f'{100 * value:.2f}' for value in columns)
            lines.append(f'| {one["title"]} | {kind} | {cells} | {passes:.0f} |')
    return '\n'.join(lines)


def mean(values: list[float]) -> float:
    """Returns the mean of some numbers."""
    return sum(values) / len(values)


def section(record: dict[str, Any]) -> str:
    """Returns the text of the page: the table and where its numbers come from."""
    one = next(iter(next(iter(record['sweeps'].values())).values()))
    return (
        f'{table(record)}\n\n'
        f'ACC in percent, and the forward passes of all radii together, for {record["attack"]} with {record["passes"]} '
        f'passes at each radius. Seed {record["seed"]}, {len(one["images"])} images, '
        f'{record["hardware"]["processor"]}, torch {record["versions"]["torch"]}, {one["date"]}. '
        '`python benchmarks/radius_sweep.py` repeats it.'
    )


def write_page(record: dict[str, Any]) -> None:
    """Writes the table and its provenance into the page."""
    before, rest = PAGE.read_text(encoding='utf-8').split(BEGIN)
    PAGE.write_text(f'{before}{BEGIN}\n\n{section(record)}\n\n{END}{rest.split(END)[1]}', encoding='utf-8')


def main() -> None:
    """Runs what has not run yet, or writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--table', action='store_true', help='write the table into the page, and run nothing')
    arguments = parser.parse_args()
    if arguments.table:
        write_page(stored())
        return
    register_all_modules()
    torch.set_num_threads(1)
    run()


if __name__ == '__main__':
    main()
