"""Makes the section of benchmarks/exact_optimum.py from its records."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import provenance, write_section

Records = Sequence[Mapping[str, Any]]
TEXTS = {
    'pixels': 'each pixel by itself',
    'linear': 'linear convolution',
    'hidden': 'one hidden layer',
    'coarse': 'coarse logits',
}


def publish(content: Mapping[str, Any], root: Path) -> None:
    """Writes the section of docs/evidence_attacks.md."""
    write_section(root / 'docs/evidence_attacks.md', 'benchmarks/exact_optimum.py', section(content))


def section(content: Mapping[str, Any]) -> str:
    """Returns the Markdown text between the marks of the study."""
    records = content['records']
    proofs = [seconds for record in records for seconds in record['seconds_of_proof']]
    unproven = sum(record['unproven'] for record in records)
    minutes = (sum(proofs) + sum(record['seconds_of_attacks'] for record in records)) / 60
    return '\n\n'.join(
        [
            families_table(records),
            'Pixels above the optimum, mean over the images:',
            gaps_table(records),
            f'Model seeds {", ".join(map(str, content["seeds"]))}. A proof takes {statistics.median(proofs):.1f} s of '
            f'processor time (median), {max(proofs):.0f} s at most; images without a proof: {unproven}. The whole '
            f'study takes {minutes:.0f} minutes. {provenance(content)}',
            f'```bash\n{content["command"].removesuffix(" --stored")}\n```',
        ]
    )


def of_family(records: Records, family: str) -> list[Mapping[str, Any]]:
    """Returns the records of the models of a family."""
    return [record for record in records if record['family'] == family]


def families_of(records: Records) -> list[str]:
    """Returns the names of the families, in the order of the study."""
    return list(dict.fromkeys(record['family'] for record in records))


def gaps(records: Records, attack: str, count: str) -> list[int]:
    """Returns how many pixels above the optimum an attack ends on each image."""
    return [
        left - optimum
        for record in records
        for left, optimum in zip(record['left'][attack][count], record['optimum'], strict=True)
    ]


def families_table(records: Records) -> str:
    """Returns the Markdown table of what was attacked."""
    lines = [
        '| models | images | pixels | radii | right, clean (mean) | right, proven optimum (mean) |',
        '|---|---:|---:|---|---:|---:|',
    ]
    for family in families_of(records):
        ours = of_family(records, family)
        clean = [value for record in ours for value in record['clean']]
        optima = [value for record in ours for value in record['optimum']]
        radii = ', '.join(f'{record["radius"]:g}' for record in ours)
        lines.append(
            f'| {TEXTS[family]} | {len(optima)} | {ours[0]["pixels"]} | {radii} | {statistics.fmean(clean):.1f} | '
            f'{statistics.fmean(optima):.1f} |'
        )
    return '\n'.join(lines)


def gaps_table(records: Records) -> str:
    """Returns the Markdown table of the gaps: attacks and numbers of gradients, by families."""
    names = families_of(records)
    total = sum(len(record['optimum']) for record in records)
    lines = [
        f'| attack | gradients | {" | ".join(TEXTS[name] for name in names)} | most | optimum reached, of {total} |',
        '|---|---:|' + '---:|' * (len(names) + 2),
    ]
    for attack, by_count in records[0]['left'].items():
        for count in by_count:
            means = [statistics.fmean(gaps(of_family(records, name), attack, count)) for name in names]
            every = gaps(records, attack, count)
            lines.append(
                f'| {attack} | {count} | {" | ".join(f"{mean:.2f}" for mean in means)} | {max(every)} | '
                f'{every.count(0)} |'
            )
    return '\n'.join(lines)
