"""Makes the section and the figure of benchmarks/fast_newton.py from its records."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import cell, provenance, write_section
from training_curves import Method, cost_table, curves_table, draw, mean_lengths

Records = Sequence[Mapping[str, Any]]
CURVES = ('FGSM', 'BIM-10')
# As tables name them.
STRONG = {'auto': '`auto`', 'SEA': 'SEA'}
# The fewest rows that say something about Fast Newton.
NEEDED = ('start', 'standard', 'Fast Newton')


def publish(content: Mapping[str, Any], root: Path) -> None:
    """Writes the section of docs/evidence_training.md, and the figure.

    Raises:
        SystemExit: too few methods have run.
    """
    records, methods = content['records'], list(content['settings']['methods'])
    whole = whole_methods(records, ['start', *methods])
    missing = [method for method in NEEDED if method not in whole]
    if missing:
        raise SystemExit(f'error: {", ".join(missing)} have not run yet under all attacks; nothing is published')
    draw(rows_of(content, whole), root / 'docs/images/fast_newton.png')
    write_section(root / 'docs/evidence_training.md', 'benchmarks/fast_newton.py', section(content, whole))


def whole_methods(records: Records, methods: Sequence[str]) -> list[str]:
    """Returns the methods with a seed that both FGSM and BIM have attacked at all radii."""
    return [method for method in methods if whole_seeds(records, method)]


def whole_seeds(records: Records, method: str) -> list[int]:
    """Returns the seeds of a method that both FGSM and BIM have attacked at all radii."""
    radii = max((len(record['mIoU']) for record in records if record['attack'] == 'FGSM'), default=0)
    done = [record for record in records if record['method'] == method and len(record['mIoU']) == radii]
    seeds = [{record['seed'] for record in done if record['attack'] == attack} for attack in CURVES]
    return sorted(set.intersection(*seeds))


def values(records: Records, method: str, attack: str, radius: str) -> list[float]:
    """Returns the mIoU of all whole seeds of a method, at a radius."""
    seeds = whole_seeds(records, method)
    chosen = [one for one in records if (one['method'], one['attack']) == (method, attack) and one['seed'] in seeds]
    return [one['mIoU'][radius] for one in chosen]


def section(content: Mapping[str, Any], whole: Sequence[str]) -> str:
    """Returns the Markdown text between the marks of the study."""
    records, settings, rows = content['records'], content['settings'], rows_of(content, whole)
    images = {record['images'] for record in records if record['attack'] in CURVES}
    dates = sorted({record['date'] for record in records})
    absent = [method for method in settings['methods'] if method not in whole]
    configs = ', '.join(f'`{settings["methods"][method]}`' for method in whole if method != 'start')
    parts = [
        conclusion(content),
        f'mIoU in percent, {"/".join(map(str, sorted(images)))} validation images:',
        curves_table(rows),
        'Cost and length of a step:',
        cost_table(rows, costs_of(content)['standard']),
        strong_text(content, whole),
        seeds_text(records, whole),
        f'Not measured yet: {", ".join(absent)}.' if absent else '',
        f'Start: `{settings["start"]}`; methods, in the order of the rows: {configs}. Attack seed 0. '
        f'{provenance({**content, "date": " to ".join(dict.fromkeys((dates[0], dates[-1])))})}',
        '![mIoU against the radius, and the length of the steps](images/fast_newton.png)',
        f'```bash\n{content["command"].removesuffix(" --stored")}\n```',
    ]
    return '\n\n'.join(part for part in parts if part)


def conclusion(content: Mapping[str, Any]) -> str:
    """Returns what the numbers say of Fast Newton, as a list: nothing in it outlives its numbers."""
    records = content['records']
    radii = list(next(record['mIoU'] for record in records if record['attack'] == 'BIM-10'))[1:]

    def points(method: str, radius: str, attack: str = 'BIM-10') -> float:
        return 100 * statistics.fmean(values(records, method, attack, radius))

    gains = [points('Fast Newton', radius) - points('standard', radius) for radius in radii]
    costs = costs_of(content)
    lines = [
        f'- Fast Newton has {points("Fast Newton", "0"):.1f} % clean mIoU, standard training of equal length '
        f'{points("standard", "0"):.1f} %. Under BIM-10 Fast Newton is {gains[0]:+.1f} to {gains[-1]:+.1f} points '
        f'from standard training (radius {radii[0]} to {radii[-1]}). A step costs '
        f'{costs["Fast Newton"] / costs["standard"]:.2f} standard steps.',
    ]
    for rival in ('FGSM', 'BIM-3'):
        if whole_seeds(records, rival):
            text = ', '.join(
                f'{points("Fast Newton", radius) - points(rival, radius):+.1f} at {radius}' for radius in radii
            )
            lines.append(
                f'- Against {rival} under BIM-10, in points: {text}; clean '
                f'{points("Fast Newton", "0") - points(rival, "0"):+.1f}. A step of {rival} costs '
                f'{costs[rival] / costs["standard"]:.2f} standard steps.'
            )
    return '\n'.join(lines)


def rows_of(content: Mapping[str, Any], whole: Sequence[str]) -> list[Method]:
    """Returns what tables and figure show of each method."""
    records, costs = content['records'], costs_of(content)
    radii = list(next(record['mIoU'] for record in records if record['attack'] == 'FGSM'))
    rows = []
    for method in whole:
        curves = {attack: {radius: values(records, method, attack, radius) for radius in radii} for attack in CURVES}
        trainings = [one for one in content['trainings'] if one['method'] == method]
        rows.append(
            Method(
                method,
                len(whole_seeds(records, method)),
                curves,
                costs.get(method),
                mean_lengths([one['lengths'] for one in trainings]),
                trainings[0]['steps'] if trainings else 0,
            )
        )
    return rows


def costs_of(content: Mapping[str, Any]) -> dict[str, float]:
    """Returns the processor seconds of a step by method: the median over steps, mean over seeds."""
    seconds: dict[str, list[float]] = {}
    for training in content['trainings']:
        seconds.setdefault(training['method'], []).append(training['seconds_per_step'])
    return {method: statistics.fmean(numbers) for method, numbers in seconds.items()}


def strong_text(content: Mapping[str, Any], whole: Sequence[str]) -> str:
    """Returns the table of the strong attacks, or a sentence if no method has met one."""
    settings = content['settings']['strong']
    records = [record for record in content['records'] if record['attack'] in STRONG and record['method'] in whole]
    if not records:
        return '`auto` and SEA have not run yet; they cost 400 gradients for each image.'
    lines = [
        f'Under `auto` with {settings["passes"]} gradients and under SEA with {settings["iterations"]} iterations of '
        f'each of its four losses, at {settings["radius"]}, mIoU in percent on {records[0]["images"]} images:',
        '',
        f'| training | seeds | clean | {" | ".join(STRONG.values())} |',
        '|---|---:|---:|' + '---:|' * len(STRONG),
    ]
    for method in whole:
        own = [record for record in records if record['method'] == method]
        if own:
            seeds = {record['seed']: record['mIoU']['0'] for record in own}
            shares = [[one['mIoU'][settings['radius']] for one in own if one['attack'] == name] for name in STRONG]
            cells = [cell(list(seeds.values())), *map(cell, shares)]
            lines.append(f'| {method} | {len(seeds)} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def seeds_text(records: Records, whole: Sequence[str]) -> str:
    """Returns how many seeds stand behind the rows."""
    counts = {method: len(whole_seeds(records, method)) for method in whole if method != 'start'}
    if set(counts.values()) == {1}:
        return 'Each row rests on one seed. Deviations over seeds are missing, so small differences say nothing.'
    return 'Mean ± standard deviation over the seeds of the fine-tuning; rows of one seed have no deviation.'
