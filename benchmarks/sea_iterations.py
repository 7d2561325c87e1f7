"""Measures how SEA depends on its iterations, and compares red-ε with const-ε: figures 2, 4 and 5 of its paper.

    python benchmarks/sea_iterations.py --cases digits camvid

Every run is a command of tools/test.py in its own folder. An interrupted run is resumed, and a finished run does not
run again. A run of fewer iterations is not part of a longer one, because APGD's checkpoints and the phases of the
radius are shares of the budget. So each budget has to run. The comparison uses the stored counts per image. It goes to
docs/evidence_attacks.md, docs/images/ and benchmarks/results/. The checkpoints are those of ``make demo`` and of
benchmarks/camvid.py.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import ROOT, Run, Stage, provenance, run, store, write_section

from mmadv.commands.paired_runs import WORST, StoredRun, paired_rows, paired_table
from mmadv.report.budget import draw_budget

SCHEMES = {'red': 'sea', 'const': 'configs/_base_/attacks/sea_constant_radius_100_4.py'}
ITERATIONS = (25, 50, 100, 200)


@dataclass(frozen=True)
class Case:
    """A model, a radius and a number of its test images, spread evenly.

    Attributes:
        title: title of its part of the section.
        config: config of the model and its data.
        checkpoint: checkpoint of the model.
        radius: radius of the Linf ball.
        images: number of images.
    """

    title: str
    config: str
    checkpoint: str
    radius: str
    images: int

    def command(self, attack: str, iterations: int) -> tuple[str, ...]:
        """Returns the command of a run, without its folder."""
        options = ['--iterations', str(iterations), '--limit', str(self.images), '--batch-size', '8', '--show', '0']
        return ('tools/test.py', self.config, self.checkpoint, '--attack', attack, '--eps', self.radius, *options)


CASES = {
    'digits': Case(
        'Digit scenes, PSPNet, standard training',
        'configs/demo/pspnet_clean_digits.py',
        'demo_output/pspnet_clean_digits/training/iter_200.pth',
        '8/255',
        16,
    ),
    'camvid': Case(
        'CamVid, UPerNet with a ResNet-18, standard training',
        'configs/clean/upernet_r18_clean_camvid.py',
        'work_dirs/camvid/upernet_r18_clean_camvid/iter_800.pth',
        '4/255',
        12,
    ),
}


def plan(name: str, work_dir: Path) -> dict[str, Run]:
    """Returns the runs of a case by what tables call them, those with few iterations first."""
    runs = {}
    for iterations in ITERATIONS:
        for scheme, attack in SCHEMES.items():
            out = work_dir / f'{name}_{scheme}_{iterations}'
            command = (*CASES[name].command(attack, iterations), '--resume', '--out', str(out))
            stage = Stage(command, ROOT / out / 'results.json')
            runs[f'{scheme}-{iterations}'] = Run(out.name, (stage,))
    return runs


def stored_runs(runs: dict[str, Run]) -> list[StoredRun]:
    """Returns the runs that are complete; the one with radius reduction and most iterations is the first."""
    done = {name: item.stages[0].done for name, item in runs.items() if item.stages[0].done.is_file()}
    order = sorted(done, key=lambda name: (-int(name.split('-')[1]), name.startswith('const')))
    return [StoredRun.load(name, done[name].parent) for name in order]


def part(name: str, runs: dict[str, Run]) -> tuple[str, list[dict[str, Any]]]:
    """Returns the Markdown text of a case and the rows behind it, and draws its figure."""
    case, stored = CASES[name], stored_runs(runs)
    if not stored:
        command = f'python benchmarks/sea_iterations.py --cases {name}'
        return f'**{case.title}.** Not measured yet: `{command}` measures it.', []
    rows = [{'case': name, **row} for row in paired_rows(stored)]
    figure = f'images/sea_iterations_{name}.png'
    draw_budget(rows, ROOT / 'docs' / figure, WORST)
    missing = ', '.join(one for one in runs if one not in [item.name for item in stored])
    first = stored[0].results
    texts = [
        f'**{case.title}.** `{case.config}`, {rows[0]["images"]} test images spread evenly, attack seed '
        f'{first.seed}, checkpoint sha256 `{first.checkpoint.sha256[:16]}`.',
        paired_table([row for row in rows if row['attack'] == WORST]).markdown().strip(),
        f'![{case.title}: SEA against its iterations, and its losses with and without radius reduction]({figure})',
    ]
    return '\n\n'.join(texts + ([f'Not measured yet: {missing}.'] if missing else [])), rows


def main() -> None:
    """Runs the stages that have not run yet, and writes the section of all finished runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/sea_iterations'))
    parser.add_argument('--cases', nargs='+', choices=CASES, default=list(CASES), help='to run (default: all)')
    parser.add_argument('--stored', action='store_true', help='run nothing; write the section of what has run')
    arguments = parser.parse_args()
    plans = {name: plan(name, arguments.work_dir) for name in CASES}
    for name in [] if arguments.stored else arguments.cases:
        run(plans[name].values(), ROOT / arguments.work_dir / 'logs', 1)
    parts = {name: part(name, runs) for name, runs in plans.items()}
    path = store('sea_iterations', [row for _, rows in parts.values() for row in rows])
    made = provenance(json.loads(path.read_text(encoding='utf-8')))
    notes = f'Paired 95 % intervals: every draw takes the same images for both runs. {made}'
    command = '```bash\npython benchmarks/sea_iterations.py\n```'
    text = '\n\n'.join([*(text for text, _ in parts.values()), notes, command])
    write_section(ROOT / 'docs/evidence_attacks.md', 'benchmarks/sea_iterations.py', text)
    print(text)


if __name__ == '__main__':
    main()
