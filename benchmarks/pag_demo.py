"""Aligned gradients against plain training of a segmentor on the demo scenes, under SEA.

    python benchmarks/pag_demo.py --start demo_output/pspnet_clean_digits/training/iter_200.pth

Both go on from the demo's standard model for as many iterations, with and without the PAG loss. Every stage is one of
the project's own commands, printed before it runs; what has run already is not run again. Writes
benchmarks/results/pag_demo.json and the section of docs/evidence.md.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from studies import ROOT, provenance, store, text_of, write_section

CONFIGS = {
    'plain': 'configs/demo/pspnet_clean_digits.py',
    'nearest neighbours': 'configs/pag/pspnet_neighbour_digits.py',
}
ITERATIONS, RADIUS = 60, '2/255'
OPTIONS = [
    f'train_cfg.max_iters={ITERATIONS}',
    'train_cfg.val_interval=1000',
    'train_dataloader.batch_size=16',
    'val_dataloader.dataset.length=16',
    'optim_wrapper.optimizer.lr=1e-3',
]
ATTACK = [
    '--attack',
    'sea',
    '--eps',
    RADIUS,
    '--iterations',
    '20',
    '--limit',
    '24',
    '--batch-size',
    '24',
    '--show',
    '0',
]


def commands(method: str, seed: int, start: str, folder: Path) -> list[tuple[list[str], Path]]:
    """Returns the commands of a run, each with the file that exists once it has run."""
    options = [f'load_from={start}', *OPTIONS, f'randomness.seed={seed}']
    train = ['tools/train.py', CONFIGS[method], '--work-dir', str(folder), '--cfg-options', *options]
    weights, out = folder / f'iter_{ITERATIONS}.pth', folder / 'sea'
    # The weights are those of the stock segmentor, whose config both are tested with.
    test = ['tools/test.py', CONFIGS['plain'], str(weights), *ATTACK, '--out', str(out)]
    return [(train, weights), (test, out / 'results.json')]


def record(method: str, seed: int, result: dict[str, Any]) -> dict[str, Any]:
    """Returns the numbers of one run."""
    evaluation = result['evaluation']
    attacked = evaluation['attacked'][RADIUS]['worst_case']
    numbers = {
        f'{name}_{key}': values[key]
        for name, values in (('clean', evaluation['clean']), ('sea', attacked))
        for key in ('aAcc', 'mIoU')
    }
    return {'method': method, 'seed': seed, 'images': evaluation['images'], **numbers}


def main() -> None:
    """Runs what has not run yet, and writes the section."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--start', default='demo_output/pspnet_clean_digits/training/iter_200.pth')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/pag_demo'))
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--stored', action='store_true', help='run nothing; write what has run')
    arguments = parser.parse_args()
    records = []
    for seed in range(arguments.seeds):
        for method in CONFIGS:
            folder = arguments.work_dir / f'{method.replace(" ", "_")}_{seed}'
            stages = commands(method, seed, arguments.start, folder)
            for command, done in stages:
                if not done.is_file() and not arguments.stored:
                    print('$ python', shlex.join(command), flush=True)
                    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)
            if stages[-1][1].is_file():
                records.append(record(method, seed, json.loads(stages[-1][1].read_text(encoding='utf-8'))))
    content = json.loads(store('pag_demo', records).read_text(encoding='utf-8'))
    lines = [
        f'| training | clean aAcc | clean mIoU | SEA {RADIUS} aAcc | SEA {RADIUS} mIoU | seeds |',
        '|---|' + '---:|' * 5,
    ]
    for method in CONFIGS:
        group = [found for found in records if found['method'] == method]
        cells = [
            text_of([found[key] for found in group]) for key in ('clean_aAcc', 'clean_mIoU', 'sea_aAcc', 'sea_mIoU')
        ]
        lines.append(f'| {method} (`{CONFIGS[method]}`) | {" | ".join(cells)} | {len(group)} |' if group else '')
    table = '\n'.join(filter(None, lines))
    code = '```bash\npython benchmarks/pag_demo.py\n```'
    text = f'{table}\n\n{records[0]["images"]} images. {provenance(content)}\n\n{code}'
    write_section(ROOT / 'docs/evidence.md', 'benchmarks/pag_demo.py', text)
    print(text)


if __name__ == '__main__':
    main()
