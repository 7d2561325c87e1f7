"""Makes the section and the figure of benchmarks/cost_of_robustness.py from its records."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import cell, mean_and_deviation, provenance, write_section
from matplotlib.figure import Figure
from training_curves import COLOURS, MARKERS, Method, cost_table, curves_table, mean_lengths
from training_curves import draw as draw_curves

Records = Sequence[Mapping[str, Any]]
# Budget of the figure's vertical axis.
SHOWN = 'Linf 4/255'


def publish(content: Mapping[str, Any], root: Path) -> None:
    """Writes the section of docs/evidence_training.md, and the figure.

    Raises:
        SystemExit: standard training and at least one other method have not run yet.
    """
    methods = [method for method in content['settings']['methods'] if of(content['records'], method)]
    if 'standard' not in methods or len(methods) < 2:
        raise SystemExit('error: standard training and another method have not run yet; nothing is published')
    draw(content['records'], methods, root / 'docs/images/cost_of_robustness.png')
    rows = rows_of(content['records'], methods)
    if rows:
        draw_curves(
            [with_auto(row, content['records']) for row in rows], root / 'docs/images/cost_of_robustness_curves.png'
        )
    text = section(content, methods)
    write_section(root / 'docs/evidence_training.md', 'benchmarks/cost_of_robustness.py', text)


def of(records: Records, method: str) -> list[Mapping[str, Any]]:
    """Returns the records of a method, one for each seed."""
    return [record for record in records if record['method'] == method]


def cost(records: Records, method: str) -> float:
    """Returns the processor time of a method's training over that of standard training, mean over the seeds."""
    return seconds(records, method) / seconds(records, 'standard')


def seconds(records: Records, method: str) -> float:
    """Returns the processor seconds of a method's training: median step times number of steps, mean over the seeds."""
    return statistics.fmean(record['seconds_per_step'] * record['steps'] for record in of(records, method))


def rows_of(records: Records, methods: Sequence[str]) -> list[Method]:
    """Returns what tables and figure show of each method with curves; none if standard training has none."""
    rows = []
    for method in methods:
        drawn = [record for record in of(records, method) if 'curves' in record]
        if not drawn:
            continue
        curves = {
            attack: {radius: [one['curves'][attack][radius]['mIoU'] for one in drawn] for radius in points}
            for attack, points in drawn[0]['curves'].items()
        }
        seconds_per_step = statistics.fmean(one['seconds_per_step'] for one in of(records, method))
        lengths = mean_lengths([one['lengths'] for one in drawn])
        rows.append(Method(method, len(drawn), curves, seconds_per_step, lengths, drawn[0]['steps']))
    return rows


def with_auto(row: Method, records: Records) -> Method:
    """Returns what is shown of a method with its curve under `auto`, of all its trainings."""
    radii = {'none': '0'} | {key: key.removeprefix('Linf ') for key in records[0]['numbers'] if key.startswith('Linf ')}
    points = {radius: [one['numbers'][key]['mIoU'] for one in of(records, row.name)] for key, radius in radii.items()}
    return dataclasses.replace(row, curves={**row.curves, 'auto': points})


def curves_text(content: Mapping[str, Any], methods: Sequence[str]) -> str:
    """Returns the curves, costs and lengths of the steps."""
    records = content['records']
    rows = rows_of(records, methods)
    if not rows:
        return ''
    standard = statistics.fmean(one['seconds_per_step'] for one in of(records, 'standard'))
    return '\n\n'.join(
        [
            f'mIoU in percent under FGSM and BIM-10, on {content["settings"]["curve_images"]} validation images:',
            curves_table(rows),
            'Cost and length of a step:',
            cost_table(rows, standard),
            '![mIoU against the radius, and the length of the steps](images/cost_of_robustness_curves.png)',
        ]
    )


def section(content: Mapping[str, Any], methods: Sequence[str]) -> str:
    """Returns the Markdown text between the marks of the study."""
    records = content['records']
    absent = [method for method in content['settings']['methods'] if method not in methods]
    dates = sorted({record['date'] for record in records})
    parts = [
        f'mIoU in percent under `auto`, pixel accuracy in parentheses, on {records[0]["images"]} validation images; '
        '"clean, all" is the clean mIoU on all of them:',
        table(records, methods),
        f'Not measured yet: {", ".join(absent)}.' if absent else '',
        f'Configs: `benchmarks/configs/espnet`; {content["settings"]["iterations"]} iterations of batch 8 from the '
        'published weights. Cost: processor time of the training over that of standard training, by the median step. '
        'Other programs ran beside some of the trainings. '
        f'{provenance({**content, "date": " to ".join(dict.fromkeys((dates[0], dates[-1])))})}',
        '![Robust mIoU against the cost of training](images/cost_of_robustness.png)',
        curves_text(content, methods),
        f'```bash\n{content["command"].removesuffix(" --stored")}\n```',
    ]
    return '\n\n'.join(part for part in parts if part)


def table(records: Records, methods: Sequence[str]) -> str:
    """Returns the Markdown table, methods in the order of their cost."""
    budgets = list(records[0]['numbers'])[1:]
    heads = ' | '.join(['training', 'cost', 'clean, all', 'clean', *budgets, 'seeds'])
    lines = [f'| {heads} |', '|---|' + '---:|' * (len(budgets) + 4)]
    for method in sorted(methods, key=lambda method: cost(records, method)):
        own = of(records, method)
        cells = [f'{cost(records, method):.1f}', cell([one['clean']['mIoU'] for one in own])]
        for budget in ('none', *budgets):
            mean_iou, accuracy = (cell([one['numbers'][budget][name] for one in own]) for name in ('mIoU', 'aAcc'))
            cells.append(f'{mean_iou} ({accuracy})')
        lines.append(f'| {method} | {" | ".join(cells)} | {len(own)} |')
    return '\n'.join(lines)


def draw(records: Records, methods: Sequence[str], path: Path) -> None:
    """Writes the figure: robust mIoU and clean mIoU of each method against the cost of its training."""
    figure = Figure(figsize=(11, 4.2), layout='constrained')
    for axes, budget in zip(figure.subplots(1, 2), ('none', SHOWN), strict=True):
        for n, method in enumerate(methods):
            mean, deviation = mean_and_deviation([one['numbers'][budget]['mIoU'] for one in of(records, method)])
            style = {'color': COLOURS[n], 'marker': MARKERS[n], 'linestyle': 'none', 'label': method}
            axes.errorbar(cost(records, method), 100 * mean, 100 * deviation, capsize=3, **style)
        title = 'clean' if budget == 'none' else f'auto, {budget}'
        axes.set(title=title, xlabel='cost of training over standard', ylabel='mIoU, %')
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc='outside right upper', fontsize='small')
    figure.savefig(path, dpi=90)
