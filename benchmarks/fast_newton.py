"""Trains basic, FGSM, random FGSM, BIM-3 and Fast Newton models, and draws their mIoU against the radius.

    python benchmarks/fast_newton.py --work-dir work_dirs/fast_newton

In the form of figures 3 and 4 of 'Single-step adversarial training for semantic segmentation': every model under FGSM
and under BIM with ten steps of 0.004. On the digit scenes (PSPNet, 64x64) and on CamVid (UPerNet with a ResNet-18,
80x60; the data lies in data/camvid), three seeds each. Only what has not run yet is run. Records go to
benchmarks/results/fast_newton.json, the tables to docs/evidence_training.md, the curves to docs/images/.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from studies import CAMVID_80X60, ROOT, Run, Stage, mean_and_deviation, provenance, run, store, text_of, write_section

from mmadv.attacks import FastNewton
from mmadv.checkpoints.loading import load_weights
from mmadv.engine.data import Selection, build_dataset, evenly_spaced
from mmadv.models import SegmentorAdapter, stack_images, stack_labels
from mmadv.models.building import build_segmentor

SEEDS = (0, 1, 2)
RADII = ('0.01', '0.02', '0.03', '0.04')
ATTACKS = {'FGSM': 'fgsm', 'BIM-10': 'configs/_base_/attacks/bim_10_004.py'}
DATA: dict[str, dict[str, Any]] = {
    'digit scenes': {
        'configs': {
            'basic': 'configs/demo/pspnet_clean_digits.py',
            'FGSM': 'configs/at/pspnet_fgsm_digits.py',
            'random FGSM': 'configs/at/pspnet_random_fgsm_digits.py',
            'BIM-3': 'configs/at/pspnet_bim3_digits.py',
            'Fast Newton': 'configs/fast_newton/pspnet_fast_newton_digits.py',
        },
        # The demo's schedule, twice as long.
        'options': (
            'train_dataloader.batch_size=16',
            'train_cfg.max_iters=400',
            'param_scheduler.1.end=400',
            'param_scheduler.1.T_max=360',
        ),
        'checkpoint': 'iter_400.pth',
        'images': 64,
    },
    'CamVid': {
        'configs': {
            'basic': 'configs/clean/upernet_r18_clean_camvid.py',
            'FGSM': 'configs/at/upernet_r18_fgsm_camvid.py',
            'random FGSM': 'configs/at/upernet_r18_random_fgsm_camvid.py',
            'BIM-3': 'configs/at/upernet_r18_bim3_camvid.py',
            'Fast Newton': 'configs/fast_newton/upernet_r18_fast_newton_camvid.py',
        },
        # The schedule of the larger models, a quarter as long.
        'options': (
            *CAMVID_80X60,
            'train_cfg.max_iters=200',
            'param_scheduler.0.end=40',
            'param_scheduler.1.begin=40',
            'param_scheduler.1.end=200',
        ),
        'checkpoint': 'iter_200.pth',
        'images': 32,
    },
}
STEPS_OF = ('basic', 'Fast Newton')
COLOURS = {'basic': 'C7', 'FGSM': 'C1', 'random FGSM': 'C2', 'BIM-3': 'C0', 'Fast Newton': 'C3'}
MARKERS = {'basic': 'x', 'FGSM': 's', 'random FGSM': '^', 'BIM-3': 'o', 'Fast Newton': 'D'}


def plan(work_dir: Path, names: Sequence[str]) -> list[Run]:
    """Returns every model of the study: trained, then attacked twice."""
    runs = []
    for data in names:
        settings = DATA[data]
        for seed in SEEDS:
            for method, config in settings['configs'].items():
                folder = work_dir / f'{Path(config).stem}_{seed}'
                options = ('--cfg-options', *settings['options'])
                train = ('tools/train.py', config, '--work-dir', str(folder), *options, f'randomness.seed={seed}')
                weights = folder / settings['checkpoint']
                stages = [Stage(train, weights)]
                for name, attack in ATTACKS.items():
                    out = folder / name
                    command = (
                        *('tools/test.py', config, str(weights), '--attack', attack, '--eps', *RADII),
                        *('--limit', str(settings['images']), '--batch-size', '25', '--show', '0'),
                        *('--out', str(out), *options),
                    )
                    stages.append(Stage(command, out / 'results.json'))
                runs.append(Run(folder.name, tuple(stages), {'data': data, 'method': method, 'seed': seed}))
    return runs


def records_of(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Returns one record for each model and attack: clean mIoU, and mIoU by radius."""
    records = []
    for item in runs:
        for stage, attack in zip(item.stages[1:], ATTACKS, strict=True):
            evaluation = json.loads(stage.done.read_text(encoding='utf-8'))['evaluation']
            curve = {'0': evaluation['clean']['mIoU']}
            curve |= {radius: evaluation['attacked'][radius]['worst_case']['mIoU'] for radius in RADII}
            records.append({**item.facts, 'attack': attack, 'mIoU': curve})
    return records


def newton_step(item: Run) -> float:
    """Returns how far Fast Newton moves the pixels of a trained model's test images, mean over the images."""
    settings = DATA[item.facts['data']]
    weights = item.stages[0].done
    config = Config.fromfile(weights.parent / Path(settings['configs'][item.facts['method']]).name)  # as it was trained
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = build_segmentor(config).eval()
        load_weights(model, weights)
        dataset = build_dataset(config.test_dataloader.dataset, 'test_dataloader.dataset')
    chosen = Selection(dataset, evenly_spaced(len(dataset), settings['images']))
    batch = pseudo_collate([chosen[index] for index in range(len(chosen))])
    images, samples = stack_images(batch['inputs']), batch['data_samples']
    attacked = FastNewton()(SegmentorAdapter(model, samples), images, stack_labels(samples)).images
    return (attacked - images).abs().flatten(1).amax(1).mean().item()


def values(records: Sequence[Mapping[str, Any]], radius: str, **facts: Any) -> list[float]:
    """Returns the mIoU of all seeds at a radius."""
    chosen = [record for record in records if all(record[key] == value for key, value in facts.items())]
    return [record['mIoU'][radius] for record in chosen]


def tables(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """Returns a Markdown table for each data set."""
    blocks = []
    for data in names:
        settings = DATA[data]
        lines = [f'{data}, mIoU in percent:', '']
        heads = [f'{attack} {radius}' for attack in ATTACKS for radius in RADII]
        lines += [f'| training | clean | {" | ".join(heads)} |', '|---|' + '---:|' * (1 + len(heads))]
        for method in settings['configs']:
            facts = {'data': data, 'method': method}
            cells = [text_of(values(records, '0', attack='FGSM', **facts))]
            cells += [text_of(values(records, r, attack=attack, **facts)) for attack in ATTACKS for r in RADII]
            lines.append(f'| {method} | {" | ".join(cells)} |')
        blocks.append('\n'.join(lines))
    return '\n\n'.join(blocks)


def draw(records: Sequence[Mapping[str, Any]], names: Sequence[str], path: Path) -> None:
    """Writes the curves: a row for each data set, a column for each attack."""
    figure = Figure(figsize=(11, 4 * len(names)), layout='constrained')
    grid = figure.subplots(len(names), len(ATTACKS), squeeze=False, sharex=True, sharey='row')
    for row, data in zip(grid, names, strict=True):
        for axes, attack in zip(row, ATTACKS, strict=True):
            for method in DATA[data]['configs']:
                pairs = [
                    mean_and_deviation(values(records, radius, data=data, method=method, attack=attack))
                    for radius in ('0', *RADII)
                ]
                means, deviations = ([100 * pair[part] for pair in pairs] for part in (0, 1))
                style = {'color': COLOURS[method], 'marker': MARKERS[method], 'capsize': 3, 'label': method}
                axes.errorbar([0, *map(float, RADII)], means, deviations, **style)
            axes.set_title(f'{data}, {attack}')
            axes.grid(alpha=0.3)
            axes.set_ylim(bottom=0)
        row[0].set_ylabel('mIoU, %')
    for axes in grid[-1]:
        axes.set_xlabel('radius (Linf, images in [0, 1])')
    grid[0][0].legend()
    figure.savefig(path, dpi=90)


def main() -> None:
    """Runs what has not run yet, and writes records, tables and curves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/fast_newton'))
    parser.add_argument('--workers', type=int, default=2, help='models at a time, one thread each')
    parser.add_argument('--data', nargs='+', choices=DATA, default=list(DATA), help='data sets; all by default')
    arguments = parser.parse_args()
    names = [name for name in DATA if name in arguments.data]
    work_dir = arguments.work_dir.resolve()
    runs = plan(work_dir, names)
    run(runs, work_dir / 'logs', arguments.workers)
    steps = [{**item.facts, 'step': newton_step(item)} for item in runs if item.facts['method'] in STEPS_OF]
    path = store('fast_newton', records_of(runs), steps=steps)
    content = json.loads(path.read_text(encoding='utf-8'))
    draw(content['records'], names, ROOT / 'docs/images/fast_newton.png')
    lengths = []
    for data in names:
        for method in STEPS_OF:
            found = [one['step'] for one in steps if (one['data'], one['method']) == (data, method)]
            lengths.append(f'{data}, {method} training {statistics.fmean(found):.3f}')
    notes = (
        'How far one step of Fast Newton moves a pixel of the test images, mean over images and seeds: '
        f'{"; ".join(lengths)}.\n\n'
        f'Mean ± standard deviation over {len(SEEDS)} training seeds ({", ".join(map(str, SEEDS))}); attack seed 0. '
        f'{provenance(content)}\n\n![mIoU against the radius, FGSM and BIM-10](images/fast_newton.png)\n\n'
        f'```bash\n{content["command"]}\n```'
    )
    write_section(
        ROOT / 'docs/evidence_training.md',
        'benchmarks/fast_newton.py',
        f'{tables(content["records"], names)}\n\n{notes}',
    )


if __name__ == '__main__':
    main()
