"""Trains universal perturbations and patches by several objectives, on ESPNet with published and adversarial weights.

    python projects/espnet/convert.py WEIGHTS.pth work_dirs/espnet/espnet_camvid.pth
    python benchmarks/universal_objectives.py

`mmadv test` trains each perturbation and each patch on 200 training images of CamVid at 160x120, and applies it to all
validation images. The objective of the lowest accuracy is the default of these attacks. Finished runs do not run again.
Records go to benchmarks/results/universal_objectives.json, the section to docs/evidence_attacks.md.
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
# Weights, and radii of the perturbations.
NETWORKS = {
    'published': ('work_dirs/espnet/espnet_camvid.pth', ('2/255', '4/255')),
    'adversarial': ('benchmarks/weights/espnet_pgd3_camvid.pth', ('8/255', '16/255')),
}
# Attack -> objectives.
OBJECTIVES = {
    'Universal': ('CrossEntropy', 'BalancedCrossEntropy', 'JensenShannon', 'Tsallis'),
    'UniversalPatch': ('MaskedCrossEntropy', 'JensenShannon'),
}
MINI_BATCHES = 300
SEED = 0


def attacked(work_dir: Path, attack: str, objective: str, network: str) -> Run:
    """Returns the run that trains by an objective and tests: a perturbation for each radius, or a patch."""
    weights, radii = NETWORKS[network]
    folder = work_dir / f'{attack}_{objective}_{network}'
    command = ('measure', weights, attack, objective, str(folder), *(radii if attack == 'Universal' else ()))
    facts = {'attack': attack, 'objective': objective, 'network': network}
    return Run(folder.name, (Stage(command, folder / 'results.json'),), facts)


def measure(arguments: Sequence[str]) -> None:
    """Writes the config of the attack, and runs ``mmadv test``.

    Args:
        arguments: weights, attack, objective, folder of the results, and radii if the attack has a budget.
    """
    weights, attack, objective, folder, *radii = arguments
    settings: dict[str, Any] = {'type': attack, 'steps': MINI_BATCHES, 'objective': {'type': objective}}
    if radii:
        settings['threat'] = {'type': 'Linf', 'radius': radii[0]}
    config = Path(f'{folder}.py')
    config.write_text(f'attack = {settings!r}\n', encoding='utf-8')
    budget = ['--eps', *radii] if radii else []
    options = ['--attack', str(config), *budget, '--seed', str(SEED), '--out', folder, '--restart']
    run_test([CONFIG, weights, *options])


def records_of(item: Run) -> list[dict[str, Any]]:
    """Returns a record for the clean images and for each radius of a run that has ended; a patch has the radius 1."""
    results = RunResults.load(item.stages[0].done.parent)
    sha256 = file_sha256(ROOT / NETWORKS[item.facts['network']][0])
    return [
        {**item.facts, 'radius': radius, 'mIoU': values['mIoU'], 'aAcc': values['aAcc'], 'sha256': sha256}
        for radius, values in results.evaluation.worst_cases.items()
    ]


def section(content: Mapping[str, Any]) -> str:
    """Returns the Markdown text between the marks of the study."""
    tables = []
    for attack in OBJECTIVES:
        records = [one for one in content['records'] if one['attack'] == attack]
        # The pixels below a patch count neither clean nor attacked.
        title = 'perturbation' if attack == 'Universal' else 'patch, scored outside it'
        tables.append(f'{title.capitalize()}:\n\n{table(records)}')
    return '\n\n'.join(
        [
            'mIoU in percent, pixel accuracy in parentheses, on all validation images.',
            *tables,
            f'`{CONFIG}`; {MINI_BATCHES} mini-batches of 8, seed {SEED}. {provenance(content)}',
            f'```bash\n{content["command"]}\n```',
        ]
    )


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """Returns the Markdown table of one attack: objectives by networks and radii."""
    cases = list(dict.fromkeys((one['network'], one['radius']) for one in records))
    cells = {
        (one['objective'], (one['network'], one['radius'])): f'{100 * one["mIoU"]:.1f} ({100 * one["aAcc"]:.1f})'
        for one in records
    }
    lines = [
        f'| objective | {" | ".join(f"{network}, {radius}" for network, radius in cases)} |',
        '|---|' + '---:|' * len(cases),
    ]
    for objective in dict.fromkeys(one['objective'] for one in records):
        lines.append(f'| {objective} | {" | ".join(cells[objective, case] for case in cases)} |')
    return '\n'.join(lines)


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
        runs = [
            attacked(work_dir, attack, objective, network)
            for attack, objectives in OBJECTIVES.items()
            for network in NETWORKS
            for objective in objectives
        ]
        run(runs, work_dir / 'logs', arguments.workers, {'measure': measure})
        store('universal_objectives', [record for item in runs for record in records_of(item)])
    content = json.loads((RESULTS / 'universal_objectives.json').read_text(encoding='utf-8'))
    write_section(ROOT / 'docs/evidence_attacks.md', 'benchmarks/universal_objectives.py', section(content))


if __name__ == '__main__':
    main()
