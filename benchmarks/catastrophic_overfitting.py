"""Trains with FGSM at growing radii until it overfits catastrophically, and shows the hook that detects it.

    python projects/espnet/convert.py WEIGHTS.pth work_dirs/espnet/espnet_camvid.pth
    python benchmarks/catastrophic_overfitting.py

ESPNet starts from the weights that its authors publish, and trains on CamVid at 160x120 (the data lies in data/camvid).
All samples are attacked by FGSM without a random start: single-step training is known to collapse in this setting.
CatastrophicOverfittingHook warns in the first runs. The smallest radius with a warning is trained once more with
``action='rollback'``. Finished stages do not run again. Records go to
benchmarks/results/catastrophic_overfitting.json, the section to docs/evidence_training.md, the curves to docs/images/.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import RESULTS, ROOT, Run, Stage, provenance, run, store, write_section
from matplotlib.figure import Figure
from training_record import train_recorded

CONFIG = 'benchmarks/configs/espnet/watched_fgsm.py'
RADII = ('0.03', '0.06', '0.12')
ITERATIONS = 500
SEED = 0
# Lines of the hook in the log of a training.
EVENT = re.compile(r'(catastrophic overfitting at iteration .*|rolled back at iteration .*)')
CHECK = ('overfitting/training_attack', 'overfitting/strong_attack')


def watched(work_dir: Path, radius: str, action: str) -> Run:
    """Returns the run that trains with FGSM at a radius."""
    folder = work_dir / f'fgsm_{radius}_{action}'
    attacks = ('model.data_preprocessor.attack', 'custom_hooks.1.attack', 'val_cfg.attack')
    options = (
        *(f'{attack}.threat.radius={radius}' for attack in attacks),
        f'val_cfg.attack.step_size={float(radius) / 2:g}',
        'val_cfg.limit=16',
        f'custom_hooks.1.action={action}',
        'default_hooks.checkpoint.interval=100',
        'default_hooks.logger.interval=50',  # that of the hook: between its checks the log repeats the last one
        f'randomness.seed={SEED}',
    )
    command = ('train', CONFIG, '--work-dir', str(folder), '--cfg-options', *options)
    facts = {'radius': radius, 'action': action}
    return Run(folder.name, (Stage(command, folder / 'training.json'),), facts)


def record_of(item: Run) -> dict[str, Any]:
    """Returns the checks of the hook in a training that has ended, [iteration, accuracy, accuracy], and its lines."""
    folder = item.stages[0].done.parent
    return {**item.facts, 'checks': checks_of(folder), 'events': events_of(folder)}


def checks_of(folder: Path) -> list[list[float]]:
    """Returns iteration, accuracy under the training attack and under the strong one of each check of a training."""
    checks = {}
    for file in sorted(folder.glob('*/vis_data/scalars.json')):
        for line in file.read_text(encoding='utf-8').splitlines():
            values = json.loads(line)
            if CHECK[0] in values:
                checks[values['step']] = [values['step'], *(round(values[name], 4) for name in CHECK)]
    return [checks[step] for step in sorted(checks)]


def events_of(folder: Path) -> list[str]:
    """Returns the lines that the hook has written into the logs of a training, without time and folders."""
    lines = [line for file in sorted(folder.glob('*/*.log')) for line in file.read_text(encoding='utf-8').splitlines()]
    events = [match[1] for line in lines if (match := EVENT.search(line))]
    return [event.replace(f'{folder}/', '') for event in events]


def collapsed(record: Mapping[str, Any]) -> bool:
    """Returns whether the hook has warned."""
    return any(event.startswith('catastrophic') for event in record['events'])


def section(content: Mapping[str, Any]) -> str:
    """Returns the Markdown text between the marks of the study."""
    warned = [record for record in content['records'] if record['action'] == 'warn']
    parts = [conclusion(warned), 'Pixel accuracy in percent on 16 validation images:', table(warned)]
    for record in content['records']:
        if record['action'] == 'rollback':
            lines = '\n'.join(record['events'])
            parts += [f'The log of the training at {record["radius"]} with `action="rollback"`:', f'```\n{lines}\n```']
    parts += [
        f'`{CONFIG}`, {ITERATIONS} iterations of batch 8, seed {SEED}. {provenance(content)}',
        '![Accuracy under both attacks](images/catastrophic_overfitting.png)',
        f'```bash\n{content["command"]}\n```',
    ]
    return '\n\n'.join(parts)


def conclusion(warned: Sequence[Mapping[str, Any]]) -> str:
    """Returns the sentence that says at which radius FGSM collapses, or that it does not collapse."""
    fallen = [record for record in warned if collapsed(record)]
    if not fallen:
        radii = ', '.join(record['radius'] for record in warned)
        return f'FGSM does not overfit catastrophically at any of these radii: {radii}.'
    first = fallen[0]
    step, weak, strong = max(first['checks'], key=lambda check: check[1] - check[2])
    return (
        f'FGSM overfits catastrophically at {first["radius"]}: at iteration {step} the model has {100 * weak:.1f} % of '
        f'the pixels under its own attack, and {100 * strong:.1f} % under BIM-10 at the same radius.'
    )


def table(warned: Sequence[Mapping[str, Any]]) -> str:
    """Returns a Markdown table, a row for each radius."""
    lines = [
        '| radius | largest gap | at iteration | FGSM there | BIM-10 there | FGSM at the end | BIM-10 at the end |',
        '|---:|---:|---:|---:|---:|---:|---:|',
    ]
    for record in warned:
        step, weak, strong = max(record['checks'], key=lambda check: check[1] - check[2])
        numbers = (weak, strong, *record['checks'][-1][1:])
        cells = ' | '.join(f'{100 * number:.1f}' for number in numbers)
        lines.append(f'| {record["radius"]} | {100 * (weak - strong):.1f} | {step} | {cells} |')
    return '\n'.join(lines)


def draw(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes the curves: a panel for each training."""
    figure = Figure(figsize=(3.6 * len(records), 3.6), layout='constrained')
    for axes, record in zip(figure.subplots(1, len(records), squeeze=False, sharey=True)[0], records, strict=True):
        steps, weak, strong = zip(*record['checks'], strict=True)
        for values, label, style in ((weak, 'FGSM', 's-'), (strong, 'BIM-10', 'o-')):
            axes.plot(steps, [100 * value for value in values], style, label=label)
        axes.set(title=f'radius {record["radius"]}, {record["action"]}', xlabel='iteration', ylim=(0, 100))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=90)


def main() -> None:
    """Runs the stages that have not run yet, and writes records, section and curves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/catastrophic_overfitting'))
    parser.add_argument('--workers', type=int, default=1, help='models at a time, one thread each')
    parser.add_argument('--stored', action='store_true', help='run nothing; write what has run')
    arguments = parser.parse_args()
    if not arguments.stored:
        train(arguments.work_dir.resolve(), arguments.workers)
    content = json.loads((RESULTS / 'catastrophic_overfitting.json').read_text(encoding='utf-8'))
    draw(content['records'], ROOT / 'docs/images/catastrophic_overfitting.png')
    write_section(ROOT / 'docs/evidence_training.md', 'benchmarks/catastrophic_overfitting.py', section(content))


def train(work_dir: Path, workers: int) -> None:
    """Runs the stages that have not run yet, and writes the records."""
    sys.path.insert(0, str(ROOT / 'projects/espnet'))  # whose package the config imports
    functions = {'train': train_recorded}
    runs = [watched(work_dir, radius, 'warn') for radius in RADII]
    run(runs, work_dir / 'logs', workers, functions)
    fallen = [item.facts['radius'] for item in runs if collapsed(record_of(item))]
    if fallen:
        runs.append(watched(work_dir, fallen[0], 'rollback'))
        run(runs[-1:], work_dir / 'logs', 1, functions)
    store('catastrophic_overfitting', [record_of(item) for item in runs])


if __name__ == '__main__':
    main()
