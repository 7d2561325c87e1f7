"""Compares PIR-AT with AT from a clean backbone at several budgets, and two attack steps with five.

    python benchmarks/pir_at.py --work-dir work_dirs/pir_at

The study has the form of table 4 of 'Towards reliable evaluation and fast training of robust semantic segmentation
models', in small. UPerNet starts from a ConvNeXt that was trained on single digits, clean or adversarially
(digit_classifiers.py). It is adversarially trained for several numbers of iterations, and attacked by SEA with 20
iterations for each loss. The data is the digit scenes at 8/255, and CamVid at 80x60 and 4/255 (which lies in
data/camvid). Both start from the same classifiers. The fine-tuning has three seeds. Finished stages do not run again.
Records go to benchmarks/results/pir_at.json, the tables to docs/evidence_training.md, the curves to
docs/images/pir_at.png.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import digit_classifiers
from experiments import (
    CAMVID_80X60,
    ROOT,
    Run,
    Stage,
    mean_and_deviation,
    provenance,
    run,
    store,
    text_of,
    write_section,
)
from matplotlib.figure import Figure

SEEDS = (0, 1, 2)
STARTS = {'clean': 'clean (AT)', 'robust': 'robust (PIR-AT)'}
IMAGES = 32
SEA_ITERATIONS = 20
DATA: dict[str, dict[str, Any]] = {
    'digit scenes': {
        'config': 'configs/pir_at/upernet_pgd2_digits.py',
        'radius': '8/255',
        'step_sizes': {2: 0.02, 5: 0.01},
        'options': ('train_dataloader.batch_size=16',),
        # Attack steps -> numbers of iterations.
        'budgets': {2: (100, 200, 400), 5: (200,)},
    },
    'CamVid': {
        'config': 'configs/pir_at/upernet_pgd2_camvid.py',
        'radius': '4/255',
        'step_sizes': {2: 0.01, 5: 0.005},
        'options': CAMVID_80X60,
        'budgets': {2: (100, 400), 5: (400,)},
    },
}


def plan(work_dir: Path, names: Sequence[str]) -> list[Run]:
    """Returns every segmentor of the study: trained, then attacked."""
    return [
        segmentor(work_dir, data, start, steps, iterations, seed)
        for data in names
        for seed in SEEDS
        for start in STARTS
        for steps, budgets in DATA[data]['budgets'].items()
        for iterations in budgets
    ]


def segmentor(work_dir: Path, data: str, start: str, steps: int, iterations: int, seed: int) -> Run:
    """Returns one training, and the attack on what it made."""
    settings = DATA[data]
    folder = work_dir / f'{Path(settings["config"]).stem}_{start}_{steps}step_{iterations}_{seed}'
    weights = folder / f'iter_{iterations}.pth'
    warm_up = iterations // 5
    cosine = data == 'digit scenes'
    options = (
        *('--cfg-options', f'randomness.seed={seed}', *settings['options']),
        f'model.backbone.init_cfg.checkpoint={digit_classifiers.weights(work_dir, start)}',
        f'model.data_preprocessor.attack.steps={steps}',
        f'model.data_preprocessor.attack.step_size={settings["step_sizes"][steps]}',
        *(f'train_cfg.max_iters={iterations}', f'train_cfg.val_interval={iterations}'),
        *(f'param_scheduler.0.end={warm_up}', f'param_scheduler.1.begin={warm_up}'),
        f'param_scheduler.1.end={iterations}',
        *((f'param_scheduler.1.T_max={iterations - warm_up}',) if cosine else ()),
    )
    train = ('tools/train.py', settings['config'], '--work-dir', str(folder), *options)
    attack = (
        *('tools/test.py', settings['config'], str(weights), '--attack', 'sea', '--eps', settings['radius']),
        *('--iterations', str(SEA_ITERATIONS), '--limit', str(IMAGES), '--batch-size', str(IMAGES), '--show', '0'),
        *('--out', str(folder / 'sea'), '--cfg-options', *settings['options']),
    )
    stages = (Stage(train, weights), Stage(attack, folder / 'sea/results.json'))
    facts = {'data': data, 'start': start, 'steps': steps, 'iterations': iterations, 'seed': seed}
    return Run(folder.name, stages, facts)


def records_of(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Returns one record for each segmentor: accuracies and mIoU, clean and under SEA."""
    records = []
    for item in runs:
        evaluation = json.loads(item.stages[-1].done.read_text(encoding='utf-8'))['evaluation']
        radius = DATA[item.facts['data']]['radius']
        clean, worst = evaluation['clean'], evaluation['attacked'][radius]['worst_case']
        numbers = {f'clean {key}': clean[key] for key in ('aAcc', 'mIoU')}
        numbers |= {f'SEA {key}': worst[key] for key in ('aAcc', 'mIoU')}
        records.append({**item.facts, **numbers})
    return records


def values(records: Sequence[Mapping[str, Any]], key: str, **facts: Any) -> list[float]:
    """Returns a number of all seeds."""
    return [record[key] for record in records if all(record[name] == value for name, value in facts.items())]


def iterations_to_reach(target: float, curve: Sequence[tuple[int, float]]) -> float | None:
    """Returns the iterations at which a curve reaches ``target``, interpolated in their logarithm.

    >>> iterations_to_reach(0.5, [(100, 0.4), (400, 0.6)])
    200.0
    >>> iterations_to_reach(0.3, [(100, 0.4), (400, 0.6)])  # not later than
    100.0

    Args:
        target: the value to reach.
        curve: (iterations, value), iterations ascending.

    Returns:
        None if the curve does not reach it.
    """
    if curve[0][1] >= target:
        return float(curve[0][0])
    for (before, low), (after, high) in itertools.pairwise(curve):
        if low < target <= high:
            share = (target - low) / (high - low)
            return round(math.exp(math.log(before) + share * math.log(after / before)), 6)
    return None


def speed_up(records: Sequence[Mapping[str, Any]], data: str) -> str:
    """Returns the sentence that says how many times fewer iterations PIR-AT needs for AT's robust mIoU."""
    budgets = DATA[data]['budgets'][2]
    facts = {'data': data, 'steps': 2}
    curves = {
        start: [
            (count, mean_and_deviation(values(records, 'SEA mIoU', start=start, iterations=count, **facts))[0])
            for count in budgets
        ]
        for start in STARTS
    }
    target = curves['clean'][-1][1]
    needed = iterations_to_reach(target, curves['robust'])
    text = f"{data}: AT's robust mIoU after {budgets[-1]} iterations with 2 steps, {100 * target:.1f} %, "
    if needed is None:
        return f'{text}is not reached by PIR-AT within {budgets[-1]} iterations.'
    word = 'at the smallest budget already' if needed == budgets[0] else f'after about {needed:.0f} iterations'
    return f'{text}is reached by PIR-AT {word}: {budgets[-1] / needed:.1f} times fewer (interpolated; means of seeds).'


def table(records: Sequence[Mapping[str, Any]], data: str) -> str:
    """Returns the Markdown table of a data set."""
    keys = ('clean aAcc', 'clean mIoU', 'SEA aAcc', 'SEA mIoU')
    lines = [f'{data}, {DATA[data]["radius"]}, percent:', '']
    lines += [f'| steps | iterations | start | {" | ".join(keys)} |', '|---:|---:|---|' + '---:|' * len(keys)]
    for steps, budgets in DATA[data]['budgets'].items():
        for iterations in budgets:
            for start, name in STARTS.items():
                facts = {'data': data, 'start': start, 'steps': steps, 'iterations': iterations}
                cells = ' | '.join(text_of(values(records, key, **facts)) for key in keys)
                lines.append(f'| {steps} | {iterations} | {name} | {cells} |')
    return '\n'.join(lines)


def draw(records: Sequence[Mapping[str, Any]], names: Sequence[str], path: Path) -> None:
    """Writes the curves: mIoU under SEA, and clean, against iterations; a row for each data set."""
    figure = Figure(figsize=(10, 3.8 * len(names)), layout='constrained')
    grid = figure.subplots(len(names), 2, squeeze=False)
    for row, data in zip(grid, names, strict=True):
        budgets = DATA[data]['budgets']
        for axes, key in zip(row, ('SEA mIoU', 'clean mIoU'), strict=True):
            for steps, line, filled in zip(budgets, ('-', '--'), (True, False), strict=False):
                for start, colour, marker in zip(STARTS, ('C0', 'C1'), ('o', 's'), strict=True):
                    facts = {'data': data, 'start': start, 'steps': steps}
                    pairs = [
                        mean_and_deviation(values(records, key, iterations=count, **facts)) for count in budgets[steps]
                    ]
                    means, deviations = ([100 * pair[part] for pair in pairs] for part in (0, 1))
                    label = f'{"PIR-AT" if start == "robust" else "AT"}, {steps} steps'
                    style = {'color': colour, 'marker': marker, 'linestyle': line, 'capsize': 3, 'label': label}
                    style['markerfacecolor'] = colour if filled else 'white'
                    axes.errorbar(budgets[steps], means, deviations, **style)
            axes.set_xscale('log', base=2)
            axes.set_xticks(budgets[2], list(map(str, budgets[2])))
            axes.set_xlabel('training iterations')
            what = f'mIoU under SEA at {DATA[data]["radius"]}' if key.startswith('SEA') else 'clean mIoU'
            axes.set_title(f'{data}: {what}, %')
            axes.grid(alpha=0.3)
    grid[0][0].legend()
    figure.savefig(path, dpi=90)


def main() -> None:
    """Runs the stages that have not run yet, and writes records, tables and curves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/pir_at'))
    parser.add_argument('--workers', type=int, default=2, help='models at a time, one thread each')
    parser.add_argument('--data', nargs='+', choices=DATA, default=list(DATA), help='data sets; all by default')
    arguments = parser.parse_args()
    names = [name for name in DATA if name in arguments.data]
    work_dir = arguments.work_dir.resolve()
    functions = {'train_classifier': digit_classifiers.train_classifier}
    runs = plan(work_dir, names)
    for group in (*digit_classifiers.runs(work_dir), runs):
        run(group, work_dir / 'logs', arguments.workers, functions)
    classifiers = [{'start': start, **digit_classifiers.accuracy_of(work_dir, start)} for start in STARTS]
    content = json.loads(store('pir_at', records_of(runs), classifiers=classifiers).read_text(encoding='utf-8'))
    draw(content['records'], names, ROOT / 'docs/images/pir_at.png')
    sources = '; '.join(
        f'{item["start"]}: {100 * item["clean"]:.1f} % clean, {100 * item["PGD-20"]:.1f} % under PGD-20'
        for item in classifiers
    )
    configs = ', '.join(f'`{DATA[name]["config"]}`' for name in names)
    notes = (
        f'Accuracy on single digits of the classifiers that they start from, at 8/255: {sources}. Mean ± standard '
        f'deviation over {len(SEEDS)} seeds of the fine-tuning ({", ".join(map(str, SEEDS))}); SEA with '
        f'{SEA_ITERATIONS} iterations for each of four losses on {IMAGES} images, attack seed 0. {configs}; '
        f'{provenance(content)}\n\n![mIoU against training iterations](images/pir_at.png)\n\n'
        f'```bash\n{content["command"]}\n```'
    )
    blocks = [text for data in names for text in (table(content['records'], data), speed_up(content['records'], data))]
    write_section(ROOT / 'docs/evidence_training.md', 'benchmarks/pir_at.py', '\n\n'.join([*blocks, notes]))


if __name__ == '__main__':
    main()
