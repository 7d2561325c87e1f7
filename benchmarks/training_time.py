"""Compares robust accuracy and training time of single-step, free, multi-step and annealed-margin adversarial training.

    python benchmarks/training_time.py

The demo's PSPNet on digit scenes starts from standard training. Each method trains it further at 8/255 with two seeds,
and SEA and AMA attack the result. Time is the processor time of the training command. Finished stages do not run again.
Records go to benchmarks/results/training_time.json, the table to docs/evidence_training.md, the figure to docs/images/.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import ROOT, Run, Stage, mean_and_deviation, provenance, run, store, text_of, write_section
from matplotlib.figure import Figure

from mmadv.commands.training import run_train

SEEDS = (0, 1, 2)
RADIUS = '8/255'
IMAGES = 32
START = 'configs/demo/pspnet_clean_digits.py'
PGD, AMA, FREE = (f'configs/demo/pspnet_{name}_digits.py' for name in ('pgd2', 'ama2', 'free'))
ATTACK = 'model.data_preprocessor.attack'
# Config, iterations and options of each method, all at the radius.
METHODS: dict[str, tuple[str, int, tuple[str, ...]]] = {
    'standard': (START, 100, ()),
    'FGSM': (PGD, 100, (f'{ATTACK}.steps=1', f'{ATTACK}.step_size=8/255', f'{ATTACK}.random_start=False')),
    'RS-FGSM': (PGD, 100, (f'{ATTACK}.steps=1', f'{ATTACK}.step_size=10/255')),
    'free': (FREE, 200, (f'model.data_preprocessor.radius={RADIUS}',)),
    'PGD-2': (PGD, 100, ()),
    'PGD-3': (PGD, 100, (f'{ATTACK}.steps=3', f'{ATTACK}.step_size=4/255')),
    'AMA-2': (AMA, 100, ()),
    'AMA-3': (AMA, 100, (f'{ATTACK}.steps=3',)),
}
ATTACKS = {'SEA': ('sea', '10'), 'AMA': ('ama', '30')}
MARKERS = dict(zip(METHODS, 'xsv*oDPX', strict=True))


def train_timed(arguments: Sequence[str]) -> None:
    """Trains as ``tools/train.py`` does, and writes the processor time into a file, the first argument."""
    file, *words = arguments
    start = time.process_time()
    run_train(words)
    Path(file).write_text(json.dumps({'seconds': time.process_time() - start}) + '\n', encoding='utf-8')


def schedule(iterations: int) -> tuple[str, ...]:
    """Returns the options of a schedule as long as this, without validation."""
    return (
        'train_dataloader.batch_size=16',
        f'train_cfg.max_iters={iterations}',
        f'train_cfg.val_interval={10 * iterations}',
        'param_scheduler.0.end=20',
        'param_scheduler.1.begin=20',
        f'param_scheduler.1.end={iterations}',
        f'param_scheduler.1.T_max={iterations - 20}',
    )


def plan(work_dir: Path) -> list[Run]:
    """Returns the start, and every method and seed that goes on from it."""
    start = work_dir / 'start'
    weights = start / 'iter_400.pth'
    options = ('--cfg-options', *schedule(400))
    runs = [Run('start', (Stage(('tools/train.py', START, '--work-dir', str(start), *options), weights),))]
    for seed in SEEDS:
        for method, (config, iterations, changes) in METHODS.items():
            folder = work_dir / f'{method.lower().replace(" ", "_")}_{seed}'
            options = ('--cfg-options', *schedule(iterations), *changes, f'randomness.seed={seed}')
            train = ('train', str(folder / 'time.json'), config, '--work-dir', str(folder), *options)
            stages = [Stage((*train, f'load_from={weights}'), folder / 'time.json')]
            for name, (attack, steps) in ATTACKS.items():
                command = (
                    *('tools/test.py', START, str(folder / f'iter_{iterations}.pth'), '--attack', attack),
                    *('--eps', RADIUS, '--iterations', steps, '--limit', str(IMAGES), '--show', '0'),
                    *('--out', str(folder / name)),
                )
                stages.append(Stage(command, folder / name / 'results.json'))
            runs.append(Run(folder.name, tuple(stages), {'method': method, 'seed': seed, 'iterations': iterations}))
    return runs


def record_of(item: Run) -> dict[str, Any]:
    """Returns time, clean mIoU, mIoU and mean accuracy under each attack."""
    record: dict[str, Any] = {**item.facts, **json.loads(item.stages[0].done.read_text(encoding='utf-8'))}
    for name, stage in zip(ATTACKS, item.stages[1:], strict=True):
        evaluation = json.loads(stage.done.read_text(encoding='utf-8'))['evaluation']
        record['clean'] = evaluation['clean']['mIoU']
        record[name] = evaluation['attacked'][RADIUS]['worst_case']['mIoU']
        record[f'{name} aAcc'] = evaluation['attacked'][RADIUS]['worst_case']['aAcc_image_mean']
    return record


def values(records: Sequence[Mapping[str, Any]], method: str, key: str) -> list[float]:
    """Returns a number of all seeds of a method."""
    return [record[key] for record in records if record['method'] == method]


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """Returns a Markdown table, a row for each method."""
    lines = [
        '| training | iterations | processor time, s | over standard | clean mIoU | SEA mIoU | AMA mIoU | SEA ACC '
        '| AMA ACC |',
        '|---|' + 8 * '---:|',
    ]
    standard = statistics.fmean(values(records, 'standard', 'seconds')) / METHODS['standard'][1]
    for method, (_, iterations, _) in METHODS.items():
        seconds = statistics.fmean(values(records, method, 'seconds'))
        cells = [text_of(values(records, method, key)) for key in ('clean', 'SEA', 'AMA', 'SEA aAcc', 'AMA aAcc')]
        ratio = seconds / iterations / standard
        lines.append(f'| {method} | {iterations} | {seconds:.0f} | {ratio:.2f} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def draw(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes the figure: the lower of both mIoU, and the clean one, over the processor time."""
    figure = Figure(figsize=(10, 4), layout='constrained')
    robust, clean = figure.subplots(1, 2)
    for n, (method, marker) in enumerate(MARKERS.items()):
        seconds = statistics.fmean(values(records, method, 'seconds'))
        pairs = zip(values(records, method, 'SEA'), values(records, method, 'AMA'), strict=True)
        for axes, accuracies in ((robust, [min(pair) for pair in pairs]), (clean, values(records, method, 'clean'))):
            mean, deviation = mean_and_deviation(accuracies)
            style = {'color': f'C{n}', 'marker': marker, 'markersize': 8, 'capsize': 3, 'linestyle': ''}
            axes.errorbar([seconds], [100 * mean], [100 * deviation], label=method, **style)
    for axes, title in ((robust, f'under the stronger of SEA and AMA at {RADIUS}'), (clean, 'clean')):
        axes.set(title=title, xlabel='processor time of the training, s', ylabel='mIoU, %')
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
    robust.legend(ncols=2, loc='lower right')
    figure.savefig(path, dpi=90)


def main() -> None:
    """Runs the stages that have not run yet, and writes records, table and figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/training_time'))
    parser.add_argument('--workers', type=int, default=2, help='models at a time, one thread each')
    arguments = parser.parse_args()
    work_dir = arguments.work_dir.resolve()
    start, *runs = plan(work_dir)
    run([start], work_dir / 'logs', 1)
    run(runs, work_dir / 'logs', arguments.workers, {'train': train_timed})
    path = store('training_time', [record_of(item) for item in runs])
    content = json.loads(path.read_text(encoding='utf-8'))
    draw(content['records'], ROOT / 'docs/images/training_time.png')
    notes = (
        'ACC is the mean over images of the share of correct pixels. Over standard: an iteration over one of standard '
        f'training. Mean ± standard deviation over {len(SEEDS)} training seeds ({", ".join(map(str, SEEDS))}), attack '
        f'seed 0; {IMAGES} scenes; SEA with {ATTACKS["SEA"][1]} iterations for each loss, AMA with '
        f'{ATTACKS["AMA"][1]}. {provenance(content)}\n\n![mIoU against training time](images/training_time.png)\n\n'
        f'```bash\n{content["command"]}\n```'
    )
    write_section(
        ROOT / 'docs/evidence_training.md', 'benchmarks/training_time.py', f'{table(content["records"])}\n\n{notes}'
    )


if __name__ == '__main__':
    main()
