"""Fine-tunes an accurate model by single-step and multi-step adversarial training, and attacks the results.

    python benchmarks/fast_newton.py

The study has the form of figures 3 and 4 of 'Single-step adversarial training for semantic segmentation', on CamVid at
160x120 (the data lies in data/camvid). benchmarks/cost_of_robustness.py has more methods and seeds; the network of this
study has the head that DDC-AT needs. UPerNet with a ResNet-18 trains for 1500 iterations on clean images. All methods
start from this model and train for 500 iterations. The study ends if the start is not accurate, or is robust already,
because no method could show its effect then.

Finished stages do not run again, and an interrupted training resumes from its checkpoint. The work folder keeps the
weights and their checksums. Records go to benchmarks/results/fast_newton.json after each run. ``--stored`` runs
nothing, and writes the section of docs/evidence_training.md and the figure from the stored records.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from curves import AUTO_PASSES, SEA_ITERATIONS, attack_model
from experiments import ROOT, Run, Stage, run, store
from fast_newton_report import publish
from training_record import OPTION, lengths_by_tenth, train_recorded

from mmadv.checkpoints.loading import file_sha256

SEEDS = (0, 1, 2)
RADII = ('0.01', '0.02', '0.03', '0.04')
IMAGES = 24
START = 'configs/clean/upernet_r18_clean_camvid_1500.py'
# In the order they run in, so that the main comparison is there first.
METHODS = {
    'standard': 'configs/clean/upernet_r18_clean_camvid_finetune.py',
    'Fast Newton': 'configs/fast_newton/upernet_r18_fast_newton_camvid_finetune.py',
    'FGSM': 'configs/at/upernet_r18_fgsm_camvid_finetune.py',
    'BIM-3': 'configs/at/upernet_r18_bim3_camvid_finetune.py',
    'PGD-5': 'configs/at/upernet_r18_pgd5_camvid_finetune.py',
    'DDC-AT': 'configs/ddc_at/upernet_r18_ddcat_camvid_finetune.py',
}
# Strong attacks cost about 400 gradients for each image: they get fewer images and one radius. SEA stands beside `auto`
# for DDC-AT, adversarial training whose step costs about as much, and standard training.
STRONG = {'auto': tuple(METHODS), 'SEA': ('standard', 'PGD-5', 'DDC-AT')}
STRONG_RADIUS, STRONG_IMAGES = '0.02', 8
# The start is accurate and not robust if its clean mIoU is at least this, and that under BIM-10 at this radius is less
# than this share of it.
FLOOR, FLOOR_RADIUS, FLOOR_SHARE = 0.45, '0.02', 0.5
# Without processes that load data, so that the time of a step is that of one core.
TRAINING = (
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'default_hooks.checkpoint.interval=100',
)


def plan(work_dir: Path, seeds: Sequence[int] = SEEDS) -> list[Run]:
    """Returns the start, then all methods of each seed under FGSM and BIM, then under the strong attacks."""
    start = work_dir / 'start'
    weights = start / 'iter_1500.pth'
    options = ('--cfg-options', *TRAINING, 'val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False')
    train = Stage(('train', START, '--work-dir', str(start), *options), start / 'training.json')
    facts = {'method': 'start', 'seed': 0}
    runs = [Run('start', (train, *attacks(METHODS['standard'], weights, start)), facts)]
    for seed in seeds:
        later = []
        for method, config in METHODS.items():
            folder = work_dir / f'{Path(config).stem}_{seed}'
            options = ('--cfg-options', *TRAINING, OPTION, 'train_cfg.val_interval=1000', f'load_from={weights}')
            command = ('train', config, '--work-dir', str(folder), *options, f'randomness.seed={seed}')
            train = Stage(command, folder / 'training.json')
            facts = {'method': method, 'seed': seed}
            runs.append(Run(folder.name, (train, *attacks(config, folder / 'iter_500.pth', folder)), facts))
            for name, chosen in STRONG.items():
                if method in chosen:
                    stage = attacked(config, folder / 'iter_500.pth', folder, name, STRONG_IMAGES, STRONG_RADIUS)
                    later.append(Run(f'{folder.name}_{name}', (stage,), facts))
        runs += later
    return runs


def attacks(config: str, weights: Path, folder: Path) -> tuple[Stage, ...]:
    """Returns the stages that attack a model with FGSM and with BIM."""
    return tuple(attacked(config, weights, folder, name, IMAGES, *RADII) for name in ('FGSM', 'BIM-10'))


def attacked(config: str, weights: Path, folder: Path, name: str, images: int, *radii: str) -> Stage:
    """Returns a stage of one attack."""
    done = folder / f'{name}.json'
    return Stage(('attack', config, str(weights), str(done), name, str(images), *radii), done)


def records_of(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Returns one record for each model and attack that has run: mIoU and pixel accuracy, by radius."""
    records = []
    for item in runs:
        for stage in item.stages:
            if stage.command[0] != 'attack' or not stage.done.is_file():
                continue
            content = json.loads(stage.done.read_text(encoding='utf-8'))
            if content['sha256'] != weights_of(stage):
                raise SystemExit(f'error: {stage.done} is of other weights than those that were trained; delete it')
            by_metric = {
                metric: {radius: values[metric] for radius, values in content['numbers'].items()}
                for metric in ('mIoU', 'aAcc')
            }
            records.append({**item.facts, **by_metric, **{key: content[key] for key in ('attack', 'images', 'date')}})
    return records


def weights_of(stage: Stage) -> str:
    """Returns the checksum of the weights that a stage attacks, as their training has noted it."""
    weights = Path(stage.command[2])
    noted = json.loads((weights.parent / 'training.json').read_text(encoding='utf-8'))['sha256']
    if file_sha256(weights) != noted:
        raise SystemExit(f'error: {weights} is not what was trained (another SHA-256 than in training.json)')
    return noted


def trainings_of(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Returns one record for each training that has ended: seconds of a step, and how far the attack went."""
    records = []
    for item in runs:
        done = item.stages[0].done
        if item.stages[0].command[0] != 'train' or not done.is_file():
            continue
        content = json.loads(done.read_text(encoding='utf-8'))
        if 'seconds' not in content:  # the start
            continue
        steps = len(content['seconds'])
        records.append(
            {
                **item.facts,
                'steps': steps,
                'seconds_per_step': round(sorted(content['seconds'])[steps // 2], 4),
                'seconds': round(sum(content['seconds']), 1),
                'lengths': lengths_by_tenth(content),
                **{key: content[key] for key in ('sha256', 'date')},
            }
        )
    return records


def check_start(records: Sequence[Mapping[str, Any]]) -> None:
    """Raises SystemExit unless the start is accurate and not robust, and standard training no more robust."""
    for record in records:
        if record['method'] not in ('start', 'standard') or record['attack'] != 'BIM-10':
            continue
        clean, attacked = record['mIoU']['0'], record['mIoU'].get(FLOOR_RADIUS)
        if record['method'] == 'start' and clean < FLOOR:
            raise SystemExit(
                f'error: the start has a clean mIoU of {100 * clean:.1f} %, below {100 * FLOOR:.0f} %: too weak to '
                'show what a method is for; nothing is published'
            )
        if attacked is not None and attacked >= FLOOR_SHARE * clean:
            raise SystemExit(
                f'error: {record["method"]} (seed {record["seed"]}) keeps {100 * attacked:.1f} of {100 * clean:.1f} % '
                f'mIoU under BIM-10 at {FLOOR_RADIUS}: it is robust already, and no method could show what it is for; '
                'nothing is published'
            )


def store_all(runs: Sequence[Run]) -> dict[str, Any]:
    """Writes the records of all that has run, and returns them; of a start that is too weak, nothing."""
    records = records_of(runs)
    check_start(records)
    strong = {'radius': STRONG_RADIUS, 'passes': AUTO_PASSES, 'iterations': SEA_ITERATIONS}
    settings = {'strong': strong, 'methods': METHODS, 'start': START}
    path = store('fast_newton', records, trainings=trainings_of(runs), settings=settings)
    return json.loads(path.read_text(encoding='utf-8'))


def main() -> None:
    """Runs the stages that have not run yet, and writes records, section and figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/fast_newton'))
    parser.add_argument('--workers', type=int, default=1, help='models at a time, one thread each')
    parser.add_argument('--seeds', type=int, nargs='+', default=list(SEEDS), help='of the fine-tuning')
    parser.add_argument('--stored', action='store_true', help='run nothing; write what has run')
    arguments = parser.parse_args()
    work_dir = arguments.work_dir.resolve()
    runs = plan(work_dir, arguments.seeds)
    if not arguments.stored:
        functions = {'train': train_recorded, 'attack': attack_model}
        run(runs[:1], work_dir / 'logs', 1, functions, lambda: store_all(runs))
        check_start(records_of(runs[:1]))
        run(runs[1:], work_dir / 'logs', arguments.workers, functions, lambda: store_all(runs))
    publish(store_all(runs), ROOT)


if __name__ == '__main__':
    main()
