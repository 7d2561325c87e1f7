"""Makes the table of docs/performance.md from what benchmarks/gpu.py has stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import provenance, write_section

Records = Sequence[Mapping[str, Any]]
BARE = 'bare loop, fp32'


def publish(content: Mapping[str, Any], root: Path) -> None:
    """Writes the section of docs/performance.md.

    Raises:
        SystemExit: the numbers are not of a GPU or of small models.
    """
    if content['device'] != 'cuda' or content['tiny']:
        raise SystemExit('error: the file has no numbers of a GPU at full size; nothing is published')
    write_section(root / 'docs/performance.md', 'benchmarks/gpu.py', section(content))


def section(content: Mapping[str, Any]) -> str:
    """Returns the Markdown text between the marks."""
    records = content['records']
    missing = [record for record in records if record['state'] != 'done']
    lines = [f'- {name_of(record)}: {record["state"]}, {record["reason"].splitlines()[0]}' for record in missing]
    parts = [
        f'Attacks: AMA with {content["passes"]} passes at {content["radius"]}, {content["size"]}x{content["size"]}.',
        attack_table(records),
        'Training: one step of PGD-3 adversarial training.',
        training_table(records),
        checks_text(records),
        'Not measured:\n\n' + '\n'.join(lines) if lines else '',
        f'The models train for {content["training_steps"]} steps on coloured scenes first. {provenance(content)}',
        f'```bash\n{content["command"]}\n```',
    ]
    return '\n\n'.join(part for part in parts if part)


def name_of(record: Mapping[str, Any]) -> str:
    """Returns what tells a record apart, in words."""
    keys = ('kind', 'model', 'classes', 'batch', 'variant', 'check', 'folder')
    units = {'classes': '{} classes', 'batch': 'batch {}'}
    return ', '.join(units.get(key, '{}').format(record[key]) for key in keys if key in record)


def attack_table(records: Records) -> str:
    """Returns the Markdown table of the attacks; speed is relative to the bare loop of the same case."""
    done = [record for record in records if record['kind'] == 'attack' and record['state'] == 'done']
    bare = {case_of(record): record for record in done if record['variant'] == BARE}
    lines = [
        '| model | classes | batch | forward pass | images per second | speed over the bare loop | memory, GiB | '
        'accuracy left, % |',
        '|---|---:|---:|---|---:|---:|---:|---:|',
    ]
    for record in sorted(done, key=lambda one: (one['model'], one['classes'], -one['batch'])):
        base = bare.get(case_of(record))
        speed = f'{record["images_per_second"] / base["images_per_second"]:.2f}' if base else '-'
        memory = f'{record["peak_bytes"] / 2**30:.1f}' if 'peak_bytes' in record else '-'
        lines.append(
            f'| {record["model"]} | {record["classes"]} | {record["batch"]} | {record["variant"]} | '
            f'{record["images_per_second"]:.2f} | {speed} | {memory} | {100 * record["accuracy"]:.2f} |'
        )
    return '\n'.join(lines)


def case_of(record: Mapping[str, Any]) -> tuple[str, int, int]:
    """Returns the model, the classes and the batch of a record."""
    return record['model'], record['classes'], record['batch']


def training_table(records: Records) -> str:
    """Returns the Markdown table of the training steps."""
    lines = ['| model | precision | images per second | memory, GiB |', '|---|---|---:|---:|']
    for record in records:
        if record['kind'] == 'training' and record['state'] == 'done':
            memory = f'{record["peak_bytes"] / 2**30:.1f}' if 'peak_bytes' in record else '-'
            speed = f'{record["images_per_second"]:.2f}'
            lines.append(f'| {record["model"]} | {record["variant"]} | {speed} | {memory} |')
    return '\n'.join(lines)


def checks_text(records: Records) -> str:
    """Returns sentences on the sanity checks and the tests that ran."""
    sentences = []
    for record in records:
        if record['state'] == 'done' and record['kind'] == 'sanity':
            sentences.append(
                f'{record["check"].capitalize()}: accuracies differ by {record["accuracy_difference"]:.4f} at most; '
                f'{100 * record["equal_predictions"]:.2f} % of the predictions are equal.'
            )
        if record['state'] == 'done' and record['kind'] == 'tests':
            sentences.append(f'`{record["folder"]}`: {record.get("passed", 0)} tests passed.')
    return ' '.join(sentences)
