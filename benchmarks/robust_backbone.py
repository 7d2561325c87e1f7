"""Repeats table 1 of 'Adversarially robust segmentation models learn perceptually-aligned gradients' in small.

    python benchmarks/robust_backbone.py

The study compares Pre, RB, AT and AT-101. It uses the digit scenes and UPerNet on a small ConvNeXt that was first
trained on single digits (digit_classifiers.py). Pre learns on clean images from the clean classifier. RB also learns on
clean images, but its backbone is the adversarially trained classifier, which stays frozen. AT learns on adversarial
images (PGD, 3 steps of 0.01 in a ball of 0.03) from the clean classifier. It stands for the paper's AT-50. AT-101 is AT
with three times as many blocks in the third stage of the backbone; ResNet-101 has four times as many there as
ResNet-50. All learn for the same number of iterations, with three seeds each, and are attacked by that PGD. Finished
stages do not run again. ``--methods`` runs some methods, and the stored records of the others stay. Writes
benchmarks/results/robust_backbone.json and a section of docs/gallery.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import digit_classifiers
from experiments import (
    RESULTS,
    ROOT,
    Run,
    Stage,
    dated_records,
    dates_text,
    mean_and_deviation,
    provenance,
    run,
    store,
    text_of,
    write_section,
)

CONFIG = 'configs/demo/upernet_clean_digits.py'
ADVERSARIAL = 'configs/demo/upernet_pgd2_digits.py'
ATTACK, RADIUS = 'configs/_base_/attacks/pgd_3_003.py', '0.03'
SEEDS = (0, 1, 2)
ITERATIONS, WARM_UP, IMAGES = 300, 50, 64
PGD3 = 'model.data_preprocessor.attack'
TRAINED_WITH = (f'{PGD3}.steps=3', f'{PGD3}.step_size=0.01', f'{PGD3}.threat.radius={RADIUS}')
DEEPER = f'model.backbone.depths={list(digit_classifiers.DEEP)}'.replace(' ', '')
# Method -> config, classifier that the backbone comes from, options of the training, and options of the network.
METHODS: dict[str, tuple[str, str, tuple[str, ...], tuple[str, ...]]] = {
    'Pre': (CONFIG, 'clean', (), ()),
    'RB': (CONFIG, 'robust', ('optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult=0',), ()),
    'AT': (ADVERSARIAL, 'clean', TRAINED_WITH, ()),
    'AT-101': (ADVERSARIAL, 'clean_deep', TRAINED_WITH, (DEEPER,)),
}
BACKBONE = 'model.backbone'
OPTIONS = (
    *(f'{BACKBONE}.input_convention=inception', f'{BACKBONE}.init_cfg.type=RobustPretrained'),
    *(f'{BACKBONE}.init_cfg.source=timm', f'{BACKBONE}.init_cfg.input_convention=inception'),
    *(f'train_cfg.max_iters={ITERATIONS}', 'train_cfg.val_interval=1000', 'val_dataloader.dataset.length=16'),
    *('train_dataloader.batch_size=16', f'param_scheduler.0.end={WARM_UP}', f'param_scheduler.1.begin={WARM_UP}'),
    *(f'param_scheduler.1.end={ITERATIONS}', f'param_scheduler.1.T_max={ITERATIONS - WARM_UP}'),
)


def plan(work_dir: Path, classifiers: Path, methods: Sequence[str] = tuple(METHODS)) -> list[Run]:
    """Returns the models of some methods: trained, then attacked."""
    runs = []
    for seed in SEEDS:
        for method in methods:
            config, classifier, more, network = METHODS[method]
            folder = work_dir / f'{method}_{seed}'
            weights, results = folder / f'iter_{ITERATIONS}.pth', folder / 'pgd3/results.json'
            source = f'{BACKBONE}.init_cfg.checkpoint={digit_classifiers.weights(classifiers, classifier)}'
            options = ('--cfg-options', f'randomness.seed={seed}', source, *OPTIONS, *more, *network)
            train = ('tools/train.py', config, '--work-dir', str(folder), *options)
            test = (
                *('tools/test.py', CONFIG, str(weights), '--attack', ATTACK, '--eps', RADIUS, '--limit', str(IMAGES)),
                *('--batch-size', '32', '--gradients', '4', '--show', '0', '--out', str(results.parent)),
                *(('--cfg-options', *network) if network else ()),
            )
            runs.append(
                Run(folder.name, (Stage(train, weights), Stage(test, results)), {'method': method, 'seed': seed})
            )
    return runs


def record(item: Run) -> dict[str, Any]:
    """Returns the numbers of one run."""
    results = json.loads(item.stages[-1].done.read_text(encoding='utf-8'))
    evaluation = results['evaluation']
    rows = {'clean': evaluation['clean'], 'PGD-3': evaluation['attacked'][RADIUS]['worst_case']}
    numbers = {f'{name} {key}': row[key] for name, row in rows.items() for key in ('aAcc', 'mIoU')}
    gradients = {key: results['gradients'][key] for key in ('cosine', 'high_frequency')}
    return {**item.facts, 'date': results['created'][:10], **numbers, **gradients}


def stored_content() -> dict[str, Any]:
    """Returns the stored records and accuracies; a record that has no date has that of the file."""
    path = RESULTS / 'robust_backbone.json'
    if not path.is_file():
        return {'records': [], 'classifiers': {}}
    content = json.loads(path.read_text(encoding='utf-8'))
    return {**content, 'records': dated_records(content)}


def table(records: list[dict[str, Any]]) -> str:
    """Returns the Markdown table, means and standard deviations over the seeds."""
    keys = ('clean aAcc', 'clean mIoU', 'PGD-3 aAcc', 'PGD-3 mIoU')
    lines = [f'| model | {" | ".join(keys)} | cosine to g | sharpness |', '|---|' + '---:|' * 6]
    for method in METHODS:
        group = [record for record in records if record['method'] == method]
        if not group:
            continue
        cells = [text_of([record[key] for record in group]) for key in keys]
        for key in ('cosine', 'high_frequency'):
            mean, deviation = mean_and_deviation([record[key] for record in group])
            cells.append(f'{mean:.3f} ± {deviation:.3f}')
        lines.append(f'| {method} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def main() -> None:
    """Runs the stages that have not run yet, and writes the section."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/robust_backbone'))
    parser.add_argument(
        '--classifiers', type=Path, default=Path('work_dirs/pir_at'), help='folder of the classifiers, made if need be'
    )
    parser.add_argument('--workers', type=int, default=1, help='models at a time, one thread each')
    parser.add_argument('--methods', nargs='+', choices=list(METHODS), default=list(METHODS), help='methods to run')
    arguments = parser.parse_args()
    work_dir, classifiers = arguments.work_dir.resolve(), arguments.classifiers.resolve()
    starts = dict.fromkeys(METHODS[method][1] for method in arguments.methods)
    for stage in digit_classifiers.runs(classifiers, list(starts)):
        functions = {'train_classifier': digit_classifiers.train_classifier}
        run(stage, work_dir / 'logs', arguments.workers, functions)
    runs = plan(work_dir, classifiers, arguments.methods)
    run(runs, work_dir / 'logs', arguments.workers)
    stored = stored_content()
    new = [record(item) for item in runs]
    kept = [old for old in stored['records'] if old['method'] not in arguments.methods]
    accuracies = {**stored['classifiers'], **{s: digit_classifiers.accuracy_of(classifiers, s) for s in starts}}
    path = store('robust_backbone', [*kept, *new], classifiers=accuracies)
    content = json.loads(path.read_text(encoding='utf-8'))
    sources = '; '.join(
        f'{start}: {100 * accuracy["clean"]:.1f} % clean, {100 * accuracy["PGD-20"]:.1f} % under PGD-20 at 8/255'
        for start, accuracy in accuracies.items()
    )
    text = (
        f'{table(content["records"])}\n\n{ITERATIONS} iterations of batch 16, {IMAGES} scenes; percent, mean ± '
        f'standard deviation over {len(SEEDS)} seeds of the fine-tuning. Accuracy of the classifiers: {sources}. '
        f'{dates_text(content["records"])} {provenance(content)}\n\n```bash\npython benchmarks/robust_backbone.py\n```'
    )
    write_section(ROOT / 'docs/gallery.md', 'benchmarks/robust_backbone.py', text)
    print(text)


if __name__ == '__main__':
    main()
