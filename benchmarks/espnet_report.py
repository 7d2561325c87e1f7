"""Makes the tables and the figure of docs/espnet.md from the cells that benchmarks/espnet.py has stored.

    python benchmarks/espnet_report.py

Reads JSON only. A number over several images is shown only after every attack of its table has run on all of them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from experiments import ROOT, provenance, write_section
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

PATH = ROOT / 'benchmarks/results/espnet.json'
DOCUMENT = ROOT / 'docs/espnet.md'
IMAGES = ROOT / 'docs/images'
SCHEMA, SCHEMA_VERSION = 'mmadv/espnet', 1
RADII = ('0.5/255', '1/255', '2/255', '4/255')
LOSSES = {
    'sea': ('masked_ce', 'balanced_ce', 'js', 'masked_spherical'),
    'sea-eccv': ('masked_ce', 'masked_balanced_ce', 'js'),
}
TITLES = {
    'sea': 'SEA',
    'sea-eccv': 'SEA, later version',
    'ama': 'AMA',
    'auto': '`auto`',
    'adaptive': '`adaptive`',
    'tsallis': 'TsallisPGD',
    'segpgd': 'SegPGD',
    'cospgd': 'CosPGD',
    'pgd': 'PGD',
}
# Rows of the tables: attack, iterations (of each loss for SEA).
SINGLE = ('ama', 'auto', 'tsallis', 'segpgd', 'cospgd', 'pgd')
EQUAL = (('sea', 25), ('sea-eccv', 25), *((name, 100) for name in SINGLE))
# Title of a table, its rows.
TABLES = {
    'About 100 passes': EQUAL,
    'SEA with 100 iterations of each loss': (('sea', 100), ('sea-eccv', 100), ('ama', 100), ('auto', 100)),
    'SEA with 300 iterations of each loss': (('sea', 300), ('sea-eccv', 300), ('ama', 100), ('auto', 100)),
    'As many passes as by default': (('sea', 300), ('adaptive', 120), ('auto', 400), ('tsallis', 300), ('ama', 100)),
}
# The curves.
CURVES = (*EQUAL, ('sea', 100))
# Okabe and Ito's colours.
_COLOURS = ('#0072B2', '#56B4E9', '#D55E00', '#000000', '#009E73', '#CC79A7', '#E69F00', '#999999')
STYLES = (*((colour, '-') for colour in _COLOURS), (_COLOURS[0], '--'))


def stored() -> dict[str, Any] | None:
    """Returns what the study has stored, None if there is nothing."""
    if not PATH.is_file():
        return None
    content = json.loads(PATH.read_text(encoding='utf-8'))
    if (content.get('schema'), content.get('schema_version')) != (SCHEMA, SCHEMA_VERSION):
        raise SystemExit(f'{PATH} is not of {SCHEMA} version {SCHEMA_VERSION}; move it away')
    return content


def mean_iou(records: Sequence[dict[str, Any]]) -> float:
    """Returns the mean IoU over the classes that are labelled or predicted, of the pixels of some images together.

    >>> mean_iou([{'areas': {'right': [1, 0, 0], 'predicted': [2, 1, 0], 'labelled': [1, 2, 0]}}])
    0.25
    """
    right, predicted, labelled = (
        np.array([record['areas'][name] for record in records], dtype=np.float64).sum(0)
        for name in ('right', 'predicted', 'labelled')
    )
    union = predicted + labelled - right
    return float((right[union > 0] / union[union > 0]).mean())


class Results:
    """The stored cells of one model.

    Args:
        content: of the file.
        model: 'published' or 'adversarial'.
    """

    def __init__(self, content: dict[str, Any], model: str) -> None:
        self.cells = {key: cell for key, cell in content['cells'].items() if key.startswith(f'{model} ')}
        self.model = model

    @property
    def images(self) -> list[int]:
        """Indexes of the images that have a clean result, in the order of the study."""
        return [int(key.split()[1]) for key in self.cells if key.endswith(' 0 none 0')]

    def clean(self, image: int) -> dict[str, Any]:
        """Returns the cell of the clean image."""
        return self.cells[f'{self.model} {image} 0 none 0']

    def members(self, image: int, radius: str, attack: str, steps: int) -> list[dict[str, Any]] | None:
        """Returns the cells that make an attack, the losses of SEA or the attack itself; None if one is missing."""
        names = [f'sea/{loss}' for loss in LOSSES[attack]] if attack in LOSSES else [attack]
        keys = [f'{self.model} {image} {radius} {name} {steps}' for name in names]
        return [self.cells[key] for key in keys] if all(key in self.cells for key in keys) else None

    def complete(self, radius: str, attacks: Sequence[tuple[str, int]]) -> list[int]:
        """Returns the images on which all attacks are done."""
        return [image for image in self.images if all(self.members(image, radius, *attack) for attack in attacks)]

    def worst(self, image: int, radius: str, attack: str, steps: int) -> dict[str, Any]:
        """Returns the cell of lowest accuracy among an attack's members."""
        members = self.members(image, radius, attack, steps)
        assert members is not None
        return min(members, key=lambda cell: cell['accuracy'])

    def passes(self, image: int, radius: str, attack: str, steps: int) -> int:
        """Returns the forward passes of an attack on one image."""
        members = self.members(image, radius, attack, steps)
        assert members is not None
        return sum(cell['forward'] for cell in members)

    def curve(self, image: int, radius: str, attack: str, steps: int) -> np.ndarray:
        """Returns the accuracy left after each forward pass; the losses of SEA run one after the other."""
        members = self.members(image, radius, attack, steps)
        assert members is not None
        values = []
        lowest = self.clean(image)['accuracy']
        for cell in members:
            steps_down = dict(cell['curve'])
            for count in range(1, cell['forward'] + 1):
                lowest = min(lowest, steps_down.get(count, lowest))
                values.append(lowest)
        return np.array(values)


def tables(results: Results, attacks: Sequence[tuple[str, int]]) -> list[str]:
    """Returns accuracy and mIoU left under some attacks, one table for the radii that are done on the same images."""
    radii_of: dict[tuple[int, ...], list[str]] = {}
    for radius in RADII:
        radii_of.setdefault(tuple(results.complete(radius, attacks)), []).append(radius)
    return [_table(results, attacks, images, radii) for images, radii in radii_of.items() if images]


def _table(results: Results, attacks: Sequence[tuple[str, int]], images: Sequence[int], radii: Sequence[str]) -> str:
    lines = [
        '| attack | forward passes | ' + ' | '.join(f'accuracy, {r} | mIoU, {r}' for r in radii) + ' |',
        '|---|---:|' + '---:|---:|' * len(radii),
    ]
    clean = [results.clean(image) for image in images]
    lines.append(f'| none | 1 | {" | ".join([_numbers(clean)] * len(radii))} |')
    for attack, steps in attacks:
        rows = [_numbers([results.worst(image, radius, attack, steps) for image in images]) for radius in radii]
        counts = [results.passes(image, radius, attack, steps) for image in images for radius in radii]
        lines.append(f'| {TITLES[attack]} | {np.mean(counts):.0f} | {" | ".join(rows)} |')
    names = ', '.join(f'`{cell["name"]}`' for cell in clean)
    return f'{len(images)} of the 101 validation images: {names}.\n\n' + '\n'.join(lines)


def _numbers(cells: Sequence[dict[str, Any]]) -> str:
    accuracy = np.mean([cell['accuracy'] for cell in cells])
    return f'{100 * accuracy:.2f} | {100 * mean_iou(cells):.2f}'


def draw(results: Results, path: Path) -> None:
    """Draws accuracy left against passes, a panel for each radius at which an image has all attacks of equal passes.

    SEA with more iterations is drawn where it has run on the same images.
    """
    radii = [radius for radius in RADII if results.complete(radius, EQUAL)]
    figure = Figure(figsize=(4.4 * len(radii), 4), layout='constrained')
    FigureCanvasAgg(figure)
    for axes, radius in zip(figure.subplots(1, len(radii), squeeze=False)[0], radii, strict=True):
        images = results.complete(radius, EQUAL)
        for (attack, steps), (colour, style) in zip(CURVES, STYLES, strict=True):
            if not set(images) <= set(results.complete(radius, [(attack, steps)])):
                continue
            curves = [results.curve(image, radius, attack, steps) for image in images]
            length = min(len(curve) for curve in curves)
            mean = 100 * np.mean([curve[:length] for curve in curves], axis=0)
            name = TITLES[attack].strip('`') + (f', {steps} of each loss' if attack in LOSSES else '')
            axes.step(range(1, length + 1), mean, color=colour, linestyle=style, where='post', label=name)
        axes.set(title=f'ε = {radius}, images: {len(images)}', xlabel='forward passes', ylabel='accuracy left, %')
        axes.set(xscale='log')
        axes.grid(alpha=0.3)
    handles = {line.get_label(): line for axes in figure.axes for line in axes.lines}
    figure.legend(handles.values(), handles.keys(), loc='outside lower center', ncols=len(handles), fontsize=8)
    figure.savefig(path, dpi=110)


def section(content: dict[str, Any], images: Path) -> str:
    """Returns the tables of what is complete, and draws a figure of each model.

    Args:
        content: of the file.
        images: the folder of the figures, beside the document.
    """
    parts = []
    for model, title in (('published', 'The published weights'), ('adversarial', 'After adversarial training')):
        results = Results(content, model)
        texts_of = {name: tables(results, rows) for name, rows in TABLES.items()}
        if texts_of['About 100 passes']:
            figure = images / f'espnet_{model}.png'
            draw(results, figure)
            parts += [f'## {title}', f'![Accuracy left against forward passes]({images.name}/{figure.name})']
        for name, texts in texts_of.items():
            if texts:
                parts += [f'### {name}', *texts]
    dates = sorted({cell['date'] for cell in content['cells'].values()})
    made = provenance({**content, 'date': ' to '.join(dict.fromkeys((dates[0], dates[-1])))})
    hashes = ', '.join(f'{name} {value[:12]}' for name, value in content['checkpoints'].items())
    parts.append(
        f'Config `{content["config"]}`, seed {content["seed"]}, {content["size"]}; weights by SHA-256: {hashes}. {made}'
    )
    return '\n\n'.join(parts)


def main() -> None:
    """Writes the section."""
    content = stored()
    if content is None:
        raise SystemExit(f'{PATH} is not there; run benchmarks/espnet.py first')
    write_section(DOCUMENT, 'benchmarks/espnet_report.py', section(content, IMAGES))


if __name__ == '__main__':
    main()
