"""Trains one accurate network by many methods, and sets robust accuracy against the cost of the training.

    python projects/espnet/convert.py WEIGHTS.pth work_dirs/espnet/espnet_camvid.pth
    python benchmarks/cost_of_robustness.py --seeds 0

ESPNet starts from the weights that its authors publish, so every machine has the same start. Each method trains it for
500 iterations on CamVid at 160x120 (configs in benchmarks/configs/espnet). `auto` attacks the results at four radii in
Linf and at one in L2; FGSM and BIM attack them for curves in the form of figures 3 and 4 of 'Single-step adversarial
training for semantic segmentation'. The study stops if standard training is not accurate, or is robust already,
because no method could show its effect then.

Every finished training has a record in benchmarks/results/cost_of_robustness.json, and does not run again; the weights
are needed no more. ``--stored`` runs nothing, and writes the section of docs/evidence_training.md and the figure.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cost_of_robustness_report import publish
from curves import attack_model, load_tested, under_auto
from experiments import RESULTS, ROOT, Run, Stage, run, store
from training_record import OPTION, lengths_by_tenth, train_recorded

from mmadv.checkpoints.loading import file_sha256
from mmadv.commands.provenance import hardware, versions

SEEDS = (0, 1, 2)
CONFIGS = 'benchmarks/configs/espnet'
# In the order they run in: the main comparison first, the teacher of RIGD before RIGD.
METHODS = {
    'standard': 'standard',
    'Fast Newton': 'fast_newton',
    'FGSM': 'fgsm',
    'PGD-3': 'pgd_3',
    'PGD-5': 'pgd_5',
    'RS-FGSM': 'rs_fgsm',
    'free': 'free',
    'PGD-2': 'pgd_2',
    'SegPGD-3': 'segpgd_3',
    'TRADES': 'trades',
    'Gaussian noise': 'gaussian',
    'RIGD': 'rigd',
    'PAG': 'pag',
    'Fast Newton, bounded': 'fast_newton_bounded',
    'random FGSM': 'random_fgsm',
    'step search': 'step_search',
}
TEACHER = 'PGD-5'
ITERATIONS = 500
# Threat and radius of `auto`, with its default passes.
BUDGETS = (('Linf', '1/255'), ('Linf', '2/255'), ('Linf', '4/255'), ('Linf', '8/255'), ('L2', '1'))
IMAGES = 8
# Cheap attacks for the curves, on more images.
CURVES, CURVE_RADII, CURVE_IMAGES = ('FGSM', 'BIM-10'), ('0.01', '0.02', '0.03', '0.04'), 24
SETTINGS = {'methods': METHODS, 'iterations': ITERATIONS, 'curve_images': CURVE_IMAGES}
# Standard training is accurate and not robust if its clean mIoU is at least this, and under `auto` at this radius less
# than this share of it is left.
FLOOR, FLOOR_BUDGET, FLOOR_SHARE = 0.45, 'Linf 2/255', 0.5


def plan(work_dir: Path, seeds: Sequence[int], stored: Sequence[Mapping[str, Any]]) -> list[Run]:
    """Returns a run for each method and seed without a record; before RIGD, its teacher is trained if it is gone."""
    known = {(record['method'], record['seed']) for record in stored}
    runs = []
    for seed in seeds:
        for method in METHODS:
            if (method, seed) in known:
                continue
            stages = [training(work_dir, method, seed), measuring(work_dir, method, seed)]
            stages += [drawing(work_dir, method, seed, attack) for attack in CURVES]
            if method == 'RIGD' and not stages[0].done.is_file():
                stages.insert(0, training(work_dir, TEACHER, seed))
            runs.append(Run(folder_of(work_dir, method, seed).name, tuple(stages), {'method': method, 'seed': seed}))
    return runs


def folder_of(work_dir: Path, method: str, seed: int) -> Path:
    """Returns the work folder of a training."""
    return work_dir / f'{METHODS[method]}_{seed}'


def weights_of(work_dir: Path, method: str, seed: int) -> Path:
    """Returns the checkpoint that a training ends with."""
    return folder_of(work_dir, method, seed) / f'iter_{ITERATIONS}.pth'


def training(work_dir: Path, method: str, seed: int) -> Stage:
    """Returns the stage that trains."""
    folder = folder_of(work_dir, method, seed)
    options = [
        OPTION,
        'train_cfg.val_interval=1000',
        f'randomness.seed={seed}',
        'default_hooks.checkpoint.interval=100',
    ]
    if method == 'RIGD':
        options.append(f'custom_hooks.1.target.checkpoint={weights_of(work_dir, TEACHER, seed)}')
    command = ('train', f'{CONFIGS}/{METHODS[method]}.py', '--work-dir', str(folder), '--cfg-options', *options)
    return Stage(command, folder / 'training.json')


def measuring(work_dir: Path, method: str, seed: int) -> Stage:
    """Returns the stage that attacks."""
    done = folder_of(work_dir, method, seed) / 'robustness.json'
    config = f'{CONFIGS}/{METHODS[method]}.py'
    return Stage(('measure', config, str(weights_of(work_dir, method, seed)), str(done)), done)


def drawing(work_dir: Path, method: str, seed: int, attack: str) -> Stage:
    """Returns the stage that attacks for a curve."""
    done = folder_of(work_dir, method, seed) / f'{attack}.json'
    paths = (f'{CONFIGS}/{METHODS[method]}.py', str(weights_of(work_dir, method, seed)), str(done))
    return Stage(('attack', *paths, attack, str(CURVE_IMAGES), *CURVE_RADII), done)


def measure(arguments: Sequence[str]) -> None:
    """Writes clean numbers on all validation images, and those on some of them: clean, and under each attack.

    Args:
        arguments: config, weights, file to write.
    """
    config_file, weights, out = arguments
    # The inference path of every method is the stock segmentor.
    segmentor, dataset = load_tested(config_file, weights)
    begin = time.process_time()
    content = {
        **under_auto(segmentor, dataset, BUDGETS, IMAGES),
        'attack_seconds': round(time.process_time() - begin, 1),
        'images': IMAGES,
        'sha256': file_sha256(weights),
        'date': datetime.date.today().isoformat(),
        'hardware': hardware(),
        'versions': versions(),
    }
    Path(out).write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')


def records_of(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Returns one record for each run that has ended."""
    records = []
    for item in runs:
        if not all(stage.done.is_file() for stage in item.stages):
            continue
        own = item.stages[-2 - len(CURVES) :]  # without the training of a teacher
        trained, measured, *drawn = (json.loads(stage.done.read_text(encoding='utf-8')) for stage in own)
        for stage, content in zip(own[1:], (measured, *drawn), strict=True):
            if content['sha256'] != trained['sha256']:
                raise SystemExit(f'error: {stage.done} is of other weights than those that were trained; delete it')
        seconds = sorted(trained['seconds'])
        training_numbers = {
            'steps': len(seconds),
            'seconds_per_step': round(seconds[len(seconds) // 2], 4),
            'seconds': round(sum(seconds), 1),
            'lengths': lengths_by_tenth(trained),
        }
        curves = {content['attack']: content['numbers'] for content in drawn}
        records.append({**item.facts, **training_numbers, **measured, 'curves': curves})
    return records


def stored_records() -> list[dict[str, Any]]:
    """Returns the records of earlier runs."""
    path = RESULTS / 'cost_of_robustness.json'
    return json.loads(path.read_text(encoding='utf-8'))['records'] if path.is_file() else []


def check_floor(records: Sequence[Mapping[str, Any]]) -> None:
    """Raises SystemExit unless standard training is accurate and not robust."""
    for record in records:
        if record['method'] != 'standard':
            continue
        clean, left = record['numbers']['none']['mIoU'], record['numbers'][FLOOR_BUDGET]['mIoU']
        name = f'standard training (seed {record["seed"]})'
        if clean < FLOOR:
            raise SystemExit(f'error: {name} has a clean mIoU of {100 * clean:.1f} %, below {100 * FLOOR:.0f} %')
        if left >= FLOOR_SHARE * clean:
            raise SystemExit(
                f'error: {name} keeps {100 * left:.1f} of {100 * clean:.1f} % mIoU at {FLOOR_BUDGET}: '
                'it is robust already'
            )


def main() -> None:
    """Runs what has no record yet, and writes records, section and figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/cost_of_robustness'))
    parser.add_argument('--workers', type=int, default=1, help='models at a time, one thread each')
    parser.add_argument('--seeds', type=int, nargs='+', default=list(SEEDS), help='of the training')
    parser.add_argument('--methods', nargs='+', choices=METHODS, default=list(METHODS), metavar='METHOD')
    parser.add_argument('--stored', action='store_true', help='run nothing; write what has run')
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT / 'projects/espnet'))  # whose package the configs import
    work_dir, before = arguments.work_dir.resolve(), stored_records()
    runs = [one for one in plan(work_dir, arguments.seeds, before) if one.facts['method'] in arguments.methods]

    def store_all() -> Mapping[str, Any]:
        records = [*before, *records_of(runs)]
        check_floor(records)
        return json.loads(store('cost_of_robustness', records, settings=SETTINGS).read_text(encoding='utf-8'))

    if not arguments.stored:
        functions = {'train': train_recorded, 'measure': measure, 'attack': attack_model}
        run(runs, work_dir / 'logs', arguments.workers, functions, store_all)
    publish(store_all(), ROOT)


if __name__ == '__main__':
    main()
