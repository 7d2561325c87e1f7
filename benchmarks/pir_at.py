"""Compares PIR-AT with AT from a clean backbone at several budgets, and two with five attack steps.

    python benchmarks/pir_at.py --work-dir work_dirs/pir_at

In the form of table 4 of 'Towards reliable evaluation and fast training of robust semantic segmentation models', on
the digit scenes: a small ConvNeXt learns to name the digit in the middle of a 32x32 crop, on clean images and on
adversarial ones (PGD, three steps, 8/255). UPerNet starts from either, is adversarially trained at 8/255 for several
numbers of iterations, and attacked by SEA with 20 iterations for each loss. Three seeds, each with classifiers of its
own. Only what has not run yet is run. Records go to benchmarks/results/pir_at.json, the tables to docs/evidence.md, the
curves to docs/images/pir_at.png.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from studies import ROOT, Run, Stage, mean_and_deviation, provenance, run, store, text_of, write_section
from timm.models.convnext import ConvNeXt
from torch import Tensor, nn

from mmadv.attacks import PGD, Linf
from mmadv.datasets.digit_scenes import draw_scene

CONFIG = 'configs/pir_at/upernet_pgd2_digits.py'
SEEDS = (0, 1, 2)
STARTS = ('clean', 'robust')
# Attack steps -> numbers of iterations.
BUDGETS = {2: (50, 100, 200, 400), 5: (100, 200)}
STEP_SIZE = 0.01
RADIUS = '8/255'
IMAGES = 32
SEA_ITERATIONS = 20
CROP = 32
CROPS = {'train': 4000, 'val': 500}
CLASSIFIER_ITERATIONS = 600
BATCH = 64


class Classifier(nn.Module):
    """The backbone of UPerNet's toy config with a classifier; takes RGB crops in [0, 1] and normalises inside."""

    def __init__(self) -> None:
        super().__init__()
        self.network = ConvNeXt(num_classes=10, depths=(1, 1, 2, 1), dims=(32, 64, 128, 192), ls_init_value=None)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (N, 10, 1, 1): an image of one pixel, as attacks take it."""
        return self.network((images - 0.5) / 0.5)[:, :, None, None]


def digit_crops(split: str, seed: int) -> tuple[Tensor, Tensor]:
    """Returns (n, 3, 32, 32) RGB crops of scenes in [0, 1], and (n, 1, 1) the digit around their middle."""
    rng = np.random.default_rng((seed, 7))
    images, digits = [], []
    for index in range(CROPS[split]):
        scene, labels = draw_scene(split, index, seed)
        row, column = rng.choice(np.argwhere(labels > 0))
        top, left = (int(np.clip(middle - CROP // 2, 0, len(labels) - CROP)) for middle in (row, column))
        images.append(scene[top : top + CROP, left : left + CROP, ::-1].transpose(2, 0, 1))
        digits.append(int(labels[row, column]) - 1)
    return torch.from_numpy(np.stack(images)).float() / 255, torch.tensor(digits)[:, None, None]


def train_classifier(arguments: Sequence[str]) -> None:
    """Trains a classifier and writes its weights, and its accuracies beside them.

    Args:
        arguments: 'clean' or 'robust', the seed, and the file of the weights.
    """
    start, seed, path = arguments[0], int(arguments[1]), Path(arguments[2])
    torch.manual_seed(seed)
    images, digits = digit_crops('train', seed)
    model = Classifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=CLASSIFIER_ITERATIONS)
    attack = PGD(threat=Linf(radius=RADIUS), steps=3, step_size=STEP_SIZE)
    for iteration in range(CLASSIFIER_ITERATIONS):
        rows = torch.randint(len(images), (BATCH,))
        batch, labels = images[rows], digits[rows]
        if start == 'robust':
            batch = attack.perturb(model, batch, labels, seeds=range(iteration * BATCH, (iteration + 1) * BATCH))
        loss = F.cross_entropy(model(batch), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if iteration % 100 == 0:
            print(f'iteration {iteration}, loss {loss.item():.3f}', flush=True)
    images, digits = digit_crops('val', seed)
    evaluation = PGD(threat=Linf(radius=RADIUS), steps=20, keep='lowest_accuracy')
    with torch.no_grad():
        clean = (model.eval()(images).argmax(1) == digits).float().mean().item()
    attacked = evaluation(model, images, digits).accuracy.mean().item()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix('.json').write_text(json.dumps({'clean': clean, 'PGD-20': attacked}), encoding='utf-8')
    torch.save(model.network.state_dict(), path)


def classifier(work_dir: Path, start: str, seed: int) -> Path:
    """Returns the file of a classifier's weights."""
    return work_dir / f'classifier_{start}_{seed}.pth'


def plan(work_dir: Path) -> list[Run]:
    """Returns every segmentor of the study: trained, then attacked."""
    runs = []
    for seed in SEEDS:
        for start in STARTS:
            for steps, budgets in BUDGETS.items():
                for iterations in budgets:
                    folder = work_dir / f'{start}_{steps}step_{iterations}_{seed}'
                    weights = folder / f'iter_{iterations}.pth'
                    warm_up = iterations // 5
                    options = (
                        *('--cfg-options', f'randomness.seed={seed}'),
                        f'model.backbone.init_cfg.checkpoint={classifier(work_dir, start, seed)}',
                        *(f'model.data_preprocessor.attack.steps={steps}', 'train_dataloader.batch_size=16'),
                        f'model.data_preprocessor.attack.step_size={STEP_SIZE * 2 if steps == 2 else STEP_SIZE}',
                        *(f'train_cfg.max_iters={iterations}', f'train_cfg.val_interval={iterations}'),
                        *(f'param_scheduler.0.end={warm_up}', f'param_scheduler.1.begin={warm_up}'),
                        f'param_scheduler.1.end={iterations}',
                        f'param_scheduler.1.T_max={iterations - warm_up}',
                    )
                    train = ('tools/train.py', CONFIG, '--work-dir', str(folder), *options)
                    attack = (
                        *('tools/test.py', CONFIG, str(weights), '--attack', 'sea', '--eps', RADIUS),
                        *('--iterations', str(SEA_ITERATIONS), '--limit', str(IMAGES), '--batch-size', str(IMAGES)),
                        *('--show', '0', '--out', str(folder / 'sea')),
                    )
                    stages = (Stage(train, weights), Stage(attack, folder / 'sea/results.json'))
                    facts = {'start': start, 'steps': steps, 'iterations': iterations, 'seed': seed}
                    runs.append(Run(folder.name, stages, facts))
    return runs


def classifier_runs(work_dir: Path) -> list[Run]:
    """Returns the trainings of the classifiers."""
    runs = []
    for seed in SEEDS:
        for start in STARTS:
            path = classifier(work_dir, start, seed)
            stage = Stage(('train_classifier', start, str(seed), str(path)), path)
            runs.append(Run(path.stem, (stage,), {'start': start, 'seed': seed}))
    return runs


def records_of(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Returns one record for each segmentor: accuracies and mIoU, clean and under SEA."""
    records = []
    for item in runs:
        evaluation = json.loads(item.stages[-1].done.read_text(encoding='utf-8'))['evaluation']
        clean, worst = evaluation['clean'], evaluation['attacked'][RADIUS]['worst_case']
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


def speed_up(records: Sequence[Mapping[str, Any]]) -> str:
    """Returns the sentence that says how many times fewer iterations PIR-AT needs for AT's robust mIoU."""
    budgets = BUDGETS[2]
    curves = {
        start: [
            (n, mean_and_deviation(values(records, 'SEA mIoU', start=start, steps=2, iterations=n))[0]) for n in budgets
        ]
        for start in STARTS
    }
    target = curves['clean'][-1][1]
    needed = iterations_to_reach(target, curves['robust'])
    text = f"AT's robust mIoU after {budgets[-1]} iterations with 2 steps, {100 * target:.1f} %, "
    if needed is None:
        return f'{text}is not reached by PIR-AT within {budgets[-1]} iterations.'
    word = 'at the smallest budget already' if needed == budgets[0] else f'after about {needed:.0f} iterations'
    return f'{text}is reached by PIR-AT {word}: {budgets[-1] / needed:.1f} times fewer (interpolated; means of seeds).'


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """Returns the Markdown table."""
    keys = ('clean aAcc', 'clean mIoU', 'SEA aAcc', 'SEA mIoU')
    lines = [f'| steps | iterations | start | {" | ".join(keys)} |', '|---:|---:|---|' + '---:|' * len(keys)]
    for steps, budgets in BUDGETS.items():
        for iterations in budgets:
            for start, name in zip(STARTS, ('clean (AT)', 'robust (PIR-AT)'), strict=True):
                facts = {'start': start, 'steps': steps, 'iterations': iterations}
                cells = ' | '.join(text_of(values(records, key, **facts)) for key in keys)
                lines.append(f'| {steps} | {iterations} | {name} | {cells} |')
    return '\n'.join(lines)


def draw(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes the curves: mIoU under SEA, and clean, against iterations."""
    figure = Figure(figsize=(10, 4), layout='constrained')
    left, right = figure.subplots(1, 2)
    for axes, key in ((left, 'SEA mIoU'), (right, 'clean mIoU')):
        for steps, line in zip(BUDGETS, ('-', '--'), strict=True):
            for start, colour, marker in zip(STARTS, ('C0', 'C1'), ('o', 's'), strict=True):
                pairs = [
                    mean_and_deviation(values(records, key, start=start, steps=steps, iterations=n))
                    for n in BUDGETS[steps]
                ]
                means, deviations = ([100 * pair[part] for pair in pairs] for part in (0, 1))
                label = f'{"PIR-AT" if start == "robust" else "AT"}, {steps} steps'
                style = {'color': colour, 'marker': marker, 'linestyle': line, 'capsize': 3, 'label': label}
                axes.errorbar(BUDGETS[steps], means, deviations, **style)
        axes.set_xscale('log', base=2)
        axes.set_xticks(BUDGETS[2], list(map(str, BUDGETS[2])))
        axes.set_xlabel('training iterations')
        axes.set_title('mIoU under SEA at 8/255, %' if key.startswith('SEA') else 'clean mIoU, %')
        axes.grid(alpha=0.3)
    left.legend()
    figure.savefig(path, dpi=90)


def main() -> None:
    """Runs what has not run yet, and writes records, table and curves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/pir_at'))
    parser.add_argument('--workers', type=int, default=2, help='models at a time, one thread each')
    arguments = parser.parse_args()
    work_dir = arguments.work_dir.resolve()
    functions = {'train_classifier': train_classifier}
    first, runs = classifier_runs(work_dir), plan(work_dir)
    run(first, work_dir / 'logs', arguments.workers, functions)
    run(runs, work_dir / 'logs', arguments.workers)
    classifiers = [
        {**item.facts, **json.loads(item.stages[0].done.with_suffix('.json').read_text(encoding='utf-8'))}
        for item in first
    ]
    path = store('pir_at', records_of(runs), classifiers=classifiers)
    content = json.loads(path.read_text(encoding='utf-8'))
    draw(content['records'], ROOT / 'docs/images/pir_at.png')
    sources = '; '.join(
        f'{start}: {text_of(values(classifiers, "clean", start=start))} % clean, '
        f'{text_of(values(classifiers, "PGD-20", start=start))} % under PGD-20'
        for start in STARTS
    )
    notes = (
        f'{speed_up(content["records"])}\n\nAccuracy of the classifiers that they start from: {sources}. Mean ± '
        f'standard deviation over {len(SEEDS)} seeds ({", ".join(map(str, SEEDS))}); SEA with {SEA_ITERATIONS} '
        f'iterations for each of four losses on {IMAGES} scenes, attack seed 0. `{CONFIG}`; {provenance(content)}\n\n'
        '![mIoU against training iterations](images/pir_at.png)\n\n```bash\npython benchmarks/pir_at.py\n```'
    )
    write_section(ROOT / 'docs/evidence.md', 'benchmarks/pir_at.py', f'{table(content["records"])}\n\n{notes}')


if __name__ == '__main__':
    main()
