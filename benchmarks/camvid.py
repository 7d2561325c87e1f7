"""Trains UPerNet with a ResNet-18 on CamVid clean and adversarially, attacks both with SEA, and writes the table.

    python benchmarks/camvid.py --work-dir work_dirs/camvid

Every stage is one of the project's own commands, printed before it runs; a stage whose output is there is not run
again. The data lies in data/camvid (images/ and annotations/, each with train/ and val/). The table goes to
benchmarks/results/camvid.md, with config, seed, hardware and date; docs/evidence.md shows it.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RADII = ['0.5/255', '1/255', '2/255', '4/255']
CONFIGS = {
    'standard training': 'configs/clean/upernet_r18_clean_camvid.py',
    'adversarial training (PGD-3, 2/255)': 'configs/at/upernet_r18_pgd3_camvid.py',
}
METRICS = {'aAcc': 'aAcc', 'ACC': 'aAcc_image_mean', 'mIoU': 'mIoU'}


def commands(config: str, work_dir: Path, iterations: int, images: int) -> list[tuple[Path, list[str]]]:
    """Returns (output that shows it has run, command) of training and of the attack."""
    train, attack = work_dir / Path(config).stem, work_dir / f'{Path(config).stem}_sea'
    checkpoint = train / 'iter_800.pth'
    arguments = ['--attack', 'sea', '--eps', *RADII, '--iterations', str(iterations), '--limit', str(images)]
    return [
        (checkpoint, ['tools/train.py', config, '--work-dir', str(train)]),
        (
            attack / 'results.json',
            ['tools/test.py', config, str(checkpoint), *arguments, '--batch-size', '8', '--out', str(attack)],
        ),
    ]


def table(results: dict[str, dict[str, Any]]) -> str:
    """Returns the Markdown table of all runs: clean, each objective and the worst case, per radius, in percent."""
    lines = ['| model | radius | attack | aAcc | ACC (image mean) | mIoU |', '|---|---|---|---|---|---|']
    for name, result in results.items():
        evaluation = result['evaluation']
        rows = [('0', 'none', evaluation['clean'])]
        for radius, attacked in evaluation['attacked'].items():
            rows += [(radius, member, values) for member, values in attacked['members'].items()]
            rows.append((radius, f'**{evaluation["title"]}**', attacked['worst_case']))
        for radius, attack, values in rows:
            cells = ' | '.join(f'{100 * values[key]:.2f}' for key in METRICS.values())
            lines.append(f'| {name} | {radius} | {attack} | {cells} |')
    return '\n'.join(lines)


def provenance(results: dict[str, dict[str, Any]], done: list[list[str]]) -> str:
    """Returns the Markdown text that says how the table was made."""
    lines = []
    for name, result in results.items():
        hardware, seconds = result['hardware'], result['seconds']
        passes = next(iter(result['evaluation']['attacked'].values()))['passes']['forward']['mean_per_image']
        lines.append(
            f'- {name}: `{CONFIGS[name]}`, training seed 0, attack seed {result["seed"]}, '
            f'{result["evaluation"]["images"]} of {result["dataset"]["size"]} validation images, at most {passes:.0f} '
            f'forward passes per image and radius; {hardware["processor"]}, {hardware["threads"]} thread(s), no '
            f'accelerator; attack {seconds["total"] / 60:.0f} min; {result["created"][:10]}; checkpoint sha256 '
            f'`{result["checkpoint"]["sha256"][:16]}`.'
        )
    return '\n'.join([*lines, '', '```bash', *(shlex.join(['python', *command]) for command in done), '```'])


def main() -> None:
    """Runs what has not run yet, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/camvid'))
    parser.add_argument('--iterations', type=int, default=100, help='of each of the four losses of SEA')
    parser.add_argument('--images', type=int, default=40, help='validation images, spread evenly')
    parser.add_argument('--out', type=Path, default=ROOT / 'benchmarks/results/camvid.md')
    arguments = parser.parse_args()
    results, done = {}, []
    for name, config in CONFIGS.items():
        for output, command in commands(config, arguments.work_dir, arguments.iterations, arguments.images):
            print('$ python', shlex.join(command), flush=True)
            if not output.is_file():
                subprocess.run([sys.executable, *command], cwd=ROOT, check=True)
            done.append(command)
        results[name] = json.loads(output.read_text())
    text = f'{table(results)}\n\n{provenance(results, done)}\n'
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(text)
    print(text)


if __name__ == '__main__':
    main()
