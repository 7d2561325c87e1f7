"""Compares training with aligned gradients and plain training of a segmentor on the demo scenes, under SEA.

    python benchmarks/pag_demo.py --start demo_output/pspnet_clean_digits/training/iter_200.pth [--seeds 0 1 2]

Both start from the demo's standard model and train for the same number of iterations, with and without the PAG loss.
Batch norms are frozen with the loss, and in training mode without it. Every stage is one of the project's own commands.
Finished stages do not run again. Writes benchmarks/results/pag_demo.json and the section of docs/evidence_gradients.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from experiments import ROOT, Run, Stage, mean_and_deviation, provenance, run, store, write_section

CONFIGS = {
    'plain': 'configs/demo/pspnet_clean_digits.py',
    'nearest neighbours': 'configs/pag/pspnet_neighbour_digits.py',
}
ITERATIONS, WARM_UP, RADIUS = 100, 10, '2/255'
OPTIONS = (
    *(f'train_cfg.max_iters={ITERATIONS}', 'train_cfg.val_interval=1000', 'val_dataloader.dataset.length=16'),
    *('train_dataloader.batch_size=8', 'optim_wrapper.optimizer.lr=2e-3'),
    *(f'param_scheduler.0.end={WARM_UP}', f'param_scheduler.1.begin={WARM_UP}'),
    *(f'param_scheduler.1.end={ITERATIONS}', f'param_scheduler.1.T_max={ITERATIONS - WARM_UP}'),
)
ATTACK = (
    *('--attack', 'sea', '--eps', RADIUS, '--iterations', '10', '--limit', '16', '--batch-size', '16'),
    *('--gradients', '6', '--show', '0'),
)


def plan(work_dir: Path, start: str, seeds: list[int]) -> list[Run]:
    """Returns every model of the study: trained, then attacked."""
    runs = []
    for seed in seeds:
        for method, config in CONFIGS.items():
            folder = work_dir / f'{method.replace(" ", "_")}_{seed}'
            weights, results = folder / f'iter_{ITERATIONS}.pth', folder / 'sea/results.json'
            options = ('--cfg-options', f'load_from={start}', *OPTIONS, f'randomness.seed={seed}')
            train = ('tools/train.py', config, '--work-dir', str(folder), *options)
            # The weights are those of the stock segmentor, whose config both are tested with, for the same targets g.
            test = ('tools/test.py', CONFIGS['plain'], str(weights), *ATTACK, '--out', str(results.parent))
            stages = (Stage(train, weights), Stage(test, results))
            runs.append(Run(folder.name, stages, {'method': method, 'seed': seed}))
    return runs


def record(item: Run) -> dict[str, Any]:
    """Returns the numbers of one run."""
    results = json.loads(item.stages[-1].done.read_text(encoding='utf-8'))
    evaluation, gradients = results['evaluation'], results['gradients']
    attacked = evaluation['attacked'][RADIUS]['worst_case']
    numbers = {
        f'{name}_{key}': values[key]
        for name, values in (('clean', evaluation['clean']), ('sea', attacked))
        for key in ('aAcc', 'mIoU')
    }
    alignment = {key: gradients[key] for key in ('cosine', 'high_frequency')}
    return {**item.facts, 'images': evaluation['images'], **numbers, **alignment}


def cell(group: list[dict[str, Any]], key: str, factor: float, digits: int) -> str:
    """Returns the mean over the seeds, with the standard deviation if there are several."""
    mean, deviation = mean_and_deviation([factor * record[key] for record in group])
    return f'{mean:.{digits}f}' + (f' ± {deviation:.{digits}f}' if len(group) > 1 else '')


def table(records: list[dict[str, Any]]) -> str:
    """Returns the Markdown table, means and standard deviations over the seeds."""
    lines = [
        f'| training | clean aAcc | clean mIoU | SEA {RADIUS} aAcc | SEA {RADIUS} mIoU | cosine to g | sharpness |',
        '|---|' + '---:|' * 6,
    ]
    for method, config in CONFIGS.items():
        group = [record for record in records if record['method'] == method]
        cells = [cell(group, key, 100, 1) for key in ('clean_aAcc', 'clean_mIoU', 'sea_aAcc', 'sea_mIoU')]
        cells += [cell(group, key, 1, 3) for key in ('cosine', 'high_frequency')]
        lines.append(f'| {method} (`{config}`) | {" | ".join(cells)} |')
    return '\n'.join(lines)


def main() -> None:
    """Runs the stages that have not run yet, and writes the section."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--start', default='demo_output/pspnet_clean_digits/training/iter_200.pth')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='of the training')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/pag_demo'))
    parser.add_argument('--workers', type=int, default=1, help='models at a time, one thread each')
    arguments = parser.parse_args()
    work_dir = arguments.work_dir.resolve()
    runs = plan(work_dir, str(Path(arguments.start).resolve()), arguments.seeds)
    run(runs, work_dir / 'logs', arguments.workers)
    path = store('pag_demo', [record(item) for item in runs])
    content = json.loads(path.read_text(encoding='utf-8'))
    images = content['records'][0]['images']
    count = len(arguments.seeds)
    over = 'one seed' if count == 1 else f'mean ± standard deviation over {count} seeds'
    text = (
        f'{table(content["records"])}\n\n{images} scenes, gradients of six of them; {over} of the training, '
        f'{ITERATIONS} iterations of batch 8. {provenance(content)}\n\n```bash\npython benchmarks/pag_demo.py '
        f'--seeds {" ".join(map(str, arguments.seeds))}\n```'
    )
    write_section(ROOT / 'docs/evidence_gradients.md', 'benchmarks/pag_demo.py', text)
    print(text)


if __name__ == '__main__':
    main()
