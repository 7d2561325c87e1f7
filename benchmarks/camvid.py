"""Trains UPerNet with a ResNet-18 on CamVid clean and adversarially, attacks both with SEA, and writes the table.

    python benchmarks/camvid.py --work-dir work_dirs/camvid

Every stage is one of the project's own commands, printed before it runs. Finished stages do not run again, so an
interrupted study can be resumed. The data lies in data/camvid (images/ and annotations/, each with train/ and val/).
The table, with config, seed, hardware, date and commands, goes to docs/evidence_attacks.md, between the marks of this
study. Its numbers go to benchmarks/results/camvid.json.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from experiments import ROOT, store, write_section

RADII = ['0.5/255', '1/255', '2/255', '4/255']
CONFIGS = {
    'standard training': 'configs/clean/upernet_r18_clean_camvid.py',
    'adversarial training': 'configs/at/upernet_r18_pgd3_camvid.py',
}
CHECKPOINT = 'iter_800.pth'
METRICS = ('aAcc', 'aAcc_image_mean', 'mIoU')


def run(command: list[str]) -> None:
    """Runs one of the project's commands, and prints it first."""
    print('$ python', shlex.join(command), flush=True)
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)


def stored_result(work_dir: Path, config: str, radius: str) -> dict[str, Any] | None:
    """Returns the content of the results.json of a model that holds this radius, if there is one."""
    for file in sorted((ROOT / work_dir).glob(f'{Path(config).stem}_sea*/results.json')):
        result = json.loads(file.read_text(encoding='utf-8'))
        if radius in result['evaluation']['attacked']:
            return result
    return None


def attacked(work_dir: Path, config: str, radius: str, iterations: int, images: int) -> dict[str, Any]:
    """Returns the result of SEA on a model at one radius, attacking only if there is none yet."""
    stem = Path(config).stem
    if stored_result(work_dir, config, radius) is None:
        options = ['--iterations', str(iterations), '--limit', str(images), '--batch-size', '8', '--resume']
        out = work_dir / f'{stem}_sea_{radius.replace("/", "_")}'
        checkpoint = str(work_dir / stem / CHECKPOINT)
        run(['tools/test.py', config, checkpoint, '--attack', 'sea', '--eps', radius, *options, '--out', str(out)])
    result = stored_result(work_dir, config, radius)
    assert result is not None
    return result


def table(results: dict[str, dict[str, Any]]) -> str:
    """Returns the Markdown table: per model and radius, each loss and the worst case, in percent.

    Args:
        results: model -> radius -> content of results.json.
    """
    lines = ['| model | radius | attack | aAcc | ACC (mean over images) | mIoU |', '|---|---|---|---:|---:|---:|']
    for name, by_radius in results.items():
        if not by_radius:
            continue
        evaluations = {radius: result['evaluation'] for radius, result in by_radius.items()}
        rows = [('0', 'none', next(iter(evaluations.values()))['clean'])]
        for radius, evaluation in evaluations.items():
            outcome = evaluation['attacked'][radius]
            rows += [(radius, member, values) for member, values in outcome['members'].items()]
            rows.append((radius, f'**{evaluation["title"]}**', outcome['worst_case']))
        for radius, attack, values in rows:
            cells = ' | '.join(f'{100 * values[key]:.2f}' for key in METRICS)
            lines.append(f'| {name} | {radius} | {attack} | {cells} |')
    return '\n'.join(lines)


def records_of(results: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns one record for each model and radius: all numbers, and what they were made with."""
    records = []
    for name, by_radius in results.items():
        for radius, result in by_radius.items():
            evaluation = result['evaluation']
            records.append(
                {
                    'model': name,
                    'radius': radius,
                    'clean': evaluation['clean'],
                    **{key: evaluation['attacked'][radius][key] for key in ('worst_case', 'members', 'passes')},
                    'images': evaluation['images'],
                    'minutes': round(result['seconds'][radius] / 60, 1),
                    'config': CONFIGS[name],
                    'checkpoint_sha256': result['checkpoint']['sha256'],
                    **{key: result[key] for key in ('attack', 'seed', 'command', 'created', 'hardware', 'versions')},
                }
            )
    return records


def provenance(results: dict[str, dict[str, Any]], training: list[list[str]]) -> str:
    """Returns the Markdown text that says how the table was made."""
    lines = []
    for name, by_radius in results.items():
        if not by_radius:
            continue
        first = next(iter(by_radius.values()))
        hardware = first['hardware']
        minutes = sum(result['seconds'][radius] for radius, result in by_radius.items()) / 60
        dates = sorted({result['created'][:10] for result in by_radius.values()})
        lines.append(
            f'- {name}: `{CONFIGS[name]}`, training seed 0, attack seed {first["seed"]}, '
            f'{first["evaluation"]["images"]} of {first["dataset"]["size"]} validation images, spread evenly; '
            f'{hardware["processor"]}, {hardware["threads"]} thread(s), no accelerator; attacks {minutes:.0f} min; '
            f'{" to ".join(dates)}; checkpoint sha256 `{first["checkpoint"]["sha256"][:16]}`.'
        )
    attacks = [result['command'] for by_radius in results.values() for result in by_radius.values()]
    commands = dict.fromkeys([*(shlex.join(['python', *command]) for command in training), *attacks])
    return '\n'.join([*lines, '', '```bash', *commands, '```'])


def main() -> None:
    """Runs the stages that have not run yet, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/camvid'))
    parser.add_argument('--iterations', type=int, default=100, help='of each of the four losses of SEA')
    parser.add_argument('--images', type=int, default=40, help='validation images, spread evenly')
    parser.add_argument('--stored', action='store_true', help='run nothing; write the table of what has run')
    arguments = parser.parse_args()
    results: dict[str, dict[str, Any]] = {}
    training = []
    for name, config in CONFIGS.items():
        folder = arguments.work_dir / Path(config).stem
        training.append(['tools/train.py', config, '--work-dir', str(folder)])
        if arguments.stored:
            stored = {radius: stored_result(arguments.work_dir, config, radius) for radius in RADII}
            results[name] = {radius: result for radius, result in stored.items() if result is not None}
            continue
        if not (ROOT / folder / CHECKPOINT).is_file():
            run(training[-1])
        results[name] = {
            radius: attacked(arguments.work_dir, config, radius, arguments.iterations, arguments.images)
            for radius in RADII
        }
    store('camvid', records_of(results))
    missing = [f'{name} at {radius}' for name in CONFIGS for radius in RADII if radius not in results[name]]
    text = f'{table(results)}\n\n{provenance(results, training)}'
    if missing:
        text += f'\n\nNot measured yet: {", ".join(missing)}.'
    write_section(ROOT / 'docs/evidence_attacks.md', 'benchmarks/camvid.py', text)
    print(text)


if __name__ == '__main__':
    main()
