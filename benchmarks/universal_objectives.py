"""Trains universal perturbations by several objectives, on ESPNet with published and with adversarial weights.

    python projects/espnet/convert.py WEIGHTS.pth work_dirs/espnet/espnet_camvid.pth
    python benchmarks/universal_objectives.py

`mmadv test` trains each perturbation on 200 training images of CamVid at 160x120 and adds it to all validation images.
The objective of the lowest accuracy is the default of `--attack universal`. Finished runs do not run again. Records go
to benchmarks/results/universal_objectives.json, the section to docs/evidence_attacks.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import RESULTS, ROOT, Run, Stage, provenance, run, store, write_section

from mmadv.checkpoints.loading import file_sha256
from mmadv.commands.testing import run_test
from mmadv.report import RunResults

CONFIG = 'benchmarks/configs/espnet/standard.py'
# Weights and radii of each network.
NETWORKS = {
    'published': ('work_dirs/espnet/espnet_camvid.pth', ('2/255', '4/255')),
    'adversarial': ('benchmarks/weights/espnet_pgd3_camvid.pth', ('8/255', '16/255')),
}
OBJECTIVES = ('CrossEntropy', 'BalancedCrossEntropy', 'JensenShannon', 'Tsallis')
MINI_BATCHES = 300
SEED = 0


def attacked(work_dir: Path, network: str, objective: str) -> Run:
    """Returns the run that trains and tests the perturbations of a network, one for each radius."""
    weights, radii = NETWORKS[network]
    folder = work_dir / f'{network}_{objective}'
    return Run(
        folder.name,
        (Stage(('attack', weights, objective, str(folder), *radii), folder / 'results.json'),),
        {'network': network, 'objective': objective},
    )


def attack(arguments: Sequence[str]) -> None:
    """Writes the config of the attack, and runs ``mmadv test``.

    Args:
        arguments: weights, objective, folder of the results, radii.
    """
    weights, objective, folder, *radii = arguments
    config = Path(f'{folder}.py')
    config.write_text(
        f"attack = dict(type='Universal', threat=dict(type='Linf', radius='{radii[0]}'), steps={MINI_BATCHES}, "
        f"objective=dict(type='{objective}'))\n",
        encoding='utf-8',
    )
    options = ('--attack', str(config), '--eps', *radii, '--seed', str(SEED), '--out', folder, '--restart')
    run_test([CONFIG, weights, *options])


def records_of(item: Run) -> list[dict[str, Any]]:
    """Returns a record for each radius, and one for the clean images, of a run that has ended."""
    results = RunResults.load(item.stages[0].done.parent)
    sha256 = file_sha256(ROOT / NETWORKS[item.facts['network']][0])
    return [
        {**item.facts, 'radius': radius, 'mIoU': values['mIoU'], 'aAcc': values['aAcc'], 'sha256': sha256}
        for radius, values in results.evaluation.worst_cases.items()
    ]


def section(content: Mapping[str, Any]) -> str:
    """Returns the Markdown text between the marks of the study."""
    cases = list(dict.fromkeys((one['network'], one['radius']) for one in content['records']))
    cells = {
        (one['objective'], (one['network'], one['radius'])): f'{100 * one["mIoU"]:.1f} ({100 * one["aAcc"]:.1f})'
        for one in content['records']
    }
    lines = [
        f'| objective | {" | ".join(f"{network}, {radius}" for network, radius in cases)} |',
        '|---|' + '---:|' * len(cases),
        *(
            f'| {objective} | {" | ".join(cells[objective, case] for case in cases)} |'
            for objective in dict.fromkeys(one['objective'] for one in content['records'])
        ),
    ]
    return '\n\n'.join(
        [
            'mIoU in percent, pixel accuracy in parentheses, on all validation images:',
            '\n'.join(lines),
            f'`{CONFIG}`; {MINI_BATCHES} mini-batches of 8, seed {SEED}. {provenance(content)}',
            f'```bash\n{content["command"]}\n```',
        ]
    )


def main() -> None:
    """Runs what has not run yet, and writes records and section."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/universal_objectives'))
    parser.add_argument('--workers', type=int, default=1, help='networks at a time, one thread each')
    parser.add_argument('--stored', action='store_true', help='run nothing; write what has run')
    arguments = parser.parse_args()
    if not arguments.stored:
        sys.path.insert(0, str(ROOT / 'projects/espnet'))  # whose package the config imports
        work_dir = arguments.work_dir.resolve()
        runs = [attacked(work_dir, network, objective) for network in NETWORKS for objective in OBJECTIVES]
        run(runs, work_dir / 'logs', arguments.workers, {'attack': attack})
        store('universal_objectives', [record for item in runs for record in records_of(item)])
    content = json.loads((RESULTS / 'universal_objectives.json').read_text(encoding='utf-8'))
    write_section(ROOT / 'docs/evidence_attacks.md', 'benchmarks/universal_objectives.py', section(content))


if __name__ == '__main__':
    main()
