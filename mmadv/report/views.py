"""The content of the page, as tables and short texts; ``templates/report.html`` has the layout.

The name of a run is empty if the page shows only this run.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from mmadv.errors import UserError
from mmadv.report import bounds
from mmadv.report.comparison import measured
from mmadv.report.curve import curve_svgs
from mmadv.report.drawing import draw_svgs
from mmadv.report.evaluation import Evaluation
from mmadv.report.run import RunResults
from mmadv.report.summary import sentences
from mmadv.report.table import Table, classes_table, metrics_table, percent

# If there are more classes, the page folds them away.
OPEN_CLASSES = 30
KINDS = {
    'least robust': 'The least robust',
    'most robust': 'The most robust',
    'sample': 'Spread evenly over the images',
}
# These settings should be the same in all compared runs.
SETTINGS: dict[str, Callable[[RunResults], object]] = {
    'attack': lambda run: run.attack.title if run.attack else 'none',
    'attack parameters': lambda run: json.dumps(run.attack and run.attack.parameters, sort_keys=True),
    'radii': lambda run: ', '.join(radius.text for radius in run.radii) or 'none',
    'sweep over radii': lambda run: run.sweep,
    'seed': lambda run: run.seed,
    'dataset': lambda run: run.dataset.type,
    'images': lambda run: run.evaluation.images,
    'classes': lambda run: len(run.evaluation.classes),
    'ignored label': lambda run: run.evaluation.ignore_index,
}


class InlinePicture(NamedTuple):
    """A picture within the page: a text that says what it shows, and its base64 data."""

    text: str
    data: str


class Bar(NamedTuple):
    """A bar: its name, its length in percent, and its number; the bar of the clean images is an outline."""

    name: str
    width: str
    number: str
    clean: bool


def prefix(name: str) -> str:
    """Returns the run's name as the start of a caption; '' if the name is empty."""
    return f'{name}: ' if name else ''


def differences(runs: Mapping[str, RunResults]) -> list[str]:
    """Returns the settings that differ between the runs; their numbers are then not comparable."""
    notes = []
    for setting, read in SETTINGS.items():
        values = {name: read(run) for name, run in runs.items()}
        if len(set(map(str, values.values()))) > 1:
            detail = '' if setting == 'attack parameters' else ': ' + '; '.join(f'{n}: {v}' for n, v in values.items())
            notes.append(setting + detail)
    return notes


def warnings(run: RunResults) -> list[str]:
    """Returns the reasons to doubt a run's numbers: failed images, caveats, and warnings of measurements."""
    notes = [f'{image.image} is in no number: {image.reason}' for image in run.evaluation.failed]
    notes += run.caveats
    return notes + [note for measurement, summary in run.summaries() for note in measurement.warnings(summary)]


def wins_table(name: str, evaluation: Evaluation) -> Table | None:
    """Returns the number of images on which each attack of an ensemble is the worst; None for single attacks."""
    wins = {radius: result.wins for radius, result in evaluation.attacked.items() if result.wins}
    if not wins:
        return None
    members = dict.fromkeys(member for radius_wins in wins.values() for member in radius_wins)
    rows = tuple(
        (member, *(f'{radius_wins[member].worst} ({radius_wins[member].alone})' for radius_wins in wins.values()))
        for member in members
    )
    title = f'On how many of {evaluation.images} images an attack is the worst (in brackets: it alone)'
    return Table(('attack', *wins), rows, text_columns=1, caption=prefix(name) + title)


def class_bars(evaluation: Evaluation) -> dict[str, list[Bar]]:
    """Returns class -> bars of its IoU, for clean images and for the worst case at every radius."""
    return {
        label: [
            Bar(column, f'{100 * (values.iou[k] or 0):.2f}', percent(values.iou[k]), column == 'clean')
            for column, values in evaluation.worst_cases.items()
        ]
        for k, label in enumerate(evaluation.classes)
    }


def pictures(run: RunResults, folder: Path) -> dict[str, list[InlinePicture]]:
    """Returns the pictures of a run, grouped by the reason why they were chosen.

    Raises:
        UserError: a picture cannot be read.
    """
    text = '{}: image, label, predictions, adversarial images and perturbations'
    return {
        title: [inline(folder / one.file, text.format(one.image)) for one in run.pictures if one.kind == kind]
        for kind, title in KINDS.items()
        if any(one.kind == kind for one in run.pictures)
    }


def inline(path: Path, text: str) -> InlinePicture:
    """Returns a picture; ``text`` says what it shows.

    Raises:
        UserError: the picture cannot be read.
    """
    try:
        return InlinePicture(text, base64.b64encode(path.read_bytes()).decode())
    except OSError as error:
        raise UserError(f'picture {path} cannot be read: {error.strerror}; run mmadv test again') from None


def number_tables(name: str, run: RunResults) -> list[Table]:
    """Returns the tables of a run: all metrics by attack, IoU and accuracy by class, and its measurements' tables."""
    tables = [
        replace(metrics_table(run.evaluation), caption='In percent'),
        replace(classes_table(run.evaluation), caption='IoU and accuracy of each class, %'),
    ]
    tables += [table for measurement, summary in run.summaries() for table in measurement.tables(summary)]
    return [replace(table, caption=prefix(name) + table.caption) for table in tables]


def number_sentences(run: RunResults) -> list[str]:
    """Returns the sentences on the attack and the measurements that complete the tables."""
    measured = [text for measurement, summary in run.summaries() for text in measurement.sentences(summary)]
    return [*sentences(run.evaluation), *measured]


def curves(runs: Mapping[str, RunResults]) -> list[str]:
    """Returns the plots over the radius as svg elements; an empty list if no run has an attack."""
    if not any(run.radii for run in runs.values()):
        return []
    plots = draw_svgs('the robustness curves', lambda: curve_svgs(runs))
    return plots + measured_curves(runs) + draw_svgs(f'the plot of {bounds.NAME}', lambda: bounds.bounds_svgs(runs))


def measured_curves(runs: Mapping[str, RunResults]) -> list[str]:
    """Returns the plots of the measurements of runs as svg elements."""
    return [
        svg
        for measurement, summaries in measured(runs).items()
        for svg in draw_svgs(f'the curve of {measurement.name}', partial(measurement.curves, summaries))
    ]


class ShownSection(NamedTuple):
    """A section of a measurement: its title, its table, and the pictures of each run."""

    title: str
    table: Table
    pictures: dict[str, list[InlinePicture]]


def sections(runs: Mapping[str, RunResults], folders: Mapping[str, Path]) -> list[ShownSection]:
    """Returns the measurements' own sections of the page, and one that compares certificates with attacks.

    Raises:
        UserError: a picture cannot be read.
    """
    shown = []
    for measurement, summaries in measured(runs).items():
        section = measurement.section(summaries)
        if section is None:
            continue
        pictures = {
            name: [inline(folders[name] / one.file, prefix(name) + one.text) for one in own]
            for name, own in section.pictures.items()
        }
        shown.append(ShownSection(section.title, section.table, pictures))
    compared = bounds.bounds_table(runs)
    return [*shown, ShownSection(bounds.TITLE, compared, {})] if compared else shown


def settings(run: RunResults) -> dict[str, str]:
    """Returns the settings of a run: name of the setting -> text."""
    passes = {
        radius: f'{result.passes.forward.text} forward, {result.passes.backward.text} backward'
        for radius, result in run.evaluation.attacked.items()
    }
    return {
        'date': run.created,
        'config': run.config.file,
        'checkpoint': f'{run.checkpoint.file}, sha256 {run.checkpoint.sha256}',
        'dataset': f'{run.dataset.type}, {run.evaluation.images} of {run.dataset.size} images',
        'seed': str(run.seed),
        'passes per image': '; '.join(f'{radius}: {text}' for radius, text in passes.items()) or 'none',
        'seconds': f'{run.seconds["total"]:.1f}',
        'hardware': ', '.join(f'{key}: {value}' for key, value in run.hardware.items()),
        'versions': ', '.join(f'{key} {value}' for key, value in run.versions.items()),
    }


def attack_text(run: RunResults) -> str:
    """Returns the attack's parameters as indented JSON."""
    return json.dumps(run.attack and run.attack.parameters, indent=1)
