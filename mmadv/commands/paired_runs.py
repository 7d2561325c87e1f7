"""Compares runs on the same images, image by image, from their stored counts, without a new attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmadv.errors import UserError
from mmadv.evaluation.image_record import ImageRecord, to_counts
from mmadv.evaluation.record_check import check_complete
from mmadv.evaluation.result_store import read_records
from mmadv.report.metrics import CURVES
from mmadv.report.run import RunResults
from mmadv.report.table import Table, percent
from mmadv.robustness import Counts, metrics, paired_bootstrap, worst_case

WORST = 'worst case'


@dataclass(frozen=True)
class StoredRun:
    """One result folder.

    Attributes:
        name: name of the run in tables.
        results: results of the run.
        records: index of the image -> its stored record.
    """

    name: str
    results: RunResults
    records: Mapping[int, ImageRecord]

    @classmethod
    def load(cls, name: str, folder: str | Path) -> StoredRun:
        """Returns the run that a result folder holds.

        Raises:
            UserError: the results or the stored counts cannot be read.
        """
        results, path = RunResults.load(folder), Path(folder) / 'records.jsonl'
        _, records = read_records(path)
        check_complete(records, len(results.evaluation.classes), str(path))
        return cls(name, results, {record['index']: ImageRecord.from_json(record, str(path)) for record in records})

    @property
    def budget(self) -> tuple[str, int | None]:
        """Returns the scheme of the attack and its iterations; of an ensemble, the iterations of each loss."""
        attack = self.results.attack
        return budget_of(attack.parameters) if attack else ('none', None)

    def counts(self, radius: str, images: Sequence[int]) -> dict[str, Counts]:
        """Returns the counts of some images at a radius: for each attack of an ensemble, and for the worst case."""
        areas = [self.records[index].attacked[radius] for index in images]
        number = len(self.results.evaluation.classes)
        members = {name: to_counts([area[name] for area in areas], number) for name in areas[0]}
        worst, _ = worst_case(members)
        return {**(members if len(members) > 1 else {}), WORST: worst}


def budget_of(parameters: Mapping[str, Any]) -> tuple[str, int | None]:
    """Returns the scheme and the iterations of an attack, as in SEA's figures 2 and 5; None if the iterations differ.

    >>> budget_of({'type': 'RadiusReduction', 'attack': {'type': 'APGD', 'steps': 300}})
    ('red-ε', 300)
    >>> budget_of({'type': 'Restarts', 'restarts': 3, 'attack': {'type': 'APGD', 'steps': 100}})
    ('const-ε, 3 restarts', 300)
    """
    kind = parameters['type']
    if 'attacks' in parameters:
        budgets = {budget_of(member) for member in parameters['attacks'].values()}
        return budgets.pop() if len(budgets) == 1 else (kind, None)
    if kind == 'RadiusReduction':
        return 'red-ε', budget_of(parameters['attack'])[1]
    if kind == 'Restarts':
        scheme, steps = budget_of(parameters['attack'])
        return f'{scheme}, {parameters["restarts"]} restarts', steps and steps * parameters['restarts']
    return 'const-ε' if kind == 'APGD' else kind, parameters.get('steps')


def common_images(runs: Sequence[StoredRun]) -> list[int]:
    """Returns the indexes of the images that every run has, in order.

    Raises:
        UserError: the runs share no image, an image differs in content, or the runs have different classes.
    """
    first = runs[0]
    for run in runs[1:]:
        if run.results.evaluation.classes != first.results.evaluation.classes:
            raise UserError(f'{run.name} has other classes than {first.name}; compare runs of one dataset')
    images = sorted(set.intersection(*(set(run.records) for run in runs)))
    if not images:
        raise UserError(f'{", ".join(run.name for run in runs)} have no image in common; run them on the same images')
    for run in runs[1:]:
        for index in images:
            if run.records[index].digest != first.records[index].digest:
                raise UserError(
                    f'{run.name} and {first.name}: {run.records[index].image} (number {index}) or its label is not '
                    'the same; compare runs on the same images'
                )
    return images


def paired_rows(runs: Sequence[StoredRun]) -> list[dict[str, Any]]:
    """Returns one row for each common radius, run and attack: the metrics, and their differences to the first run.

    Rows have ``radius``, ``run``, ``scheme``, ``iterations``, ``attack`` and ``images``. For each metric they have its
    value as a fraction; ``METRIC difference``, the value minus that of the first run; and ``METRIC interval``, the
    paired 95 % interval of the difference. Difference and interval are None in the rows of the first run, and if the
    first run has no attack of this name.

    Raises:
        UserError: the runs have no image or no radius in common.
    """
    images = common_images(runs)
    radii = [radius for radius in runs[0].results.evaluation.attacked if all(_has(run, radius) for run in runs)]
    if not radii:
        raise UserError(f'{", ".join(run.name for run in runs)} have no radius in common; attack them at the same one')
    rows = []
    for radius in radii:
        reference = runs[0].counts(radius, images)
        for run in runs:
            scheme, iterations = run.budget
            for attack, counts in run.counts(radius, images).items():
                other = reference.get(attack) if run is not runs[0] else None
                row = {'radius': radius, 'run': run.name, 'scheme': scheme, 'iterations': iterations, 'attack': attack}
                rows.append({**row, 'images': int((counts.valid > 0).sum()), **_compared(counts, other)})
    return rows


def _has(run: StoredRun, radius: str) -> bool:
    return radius in run.results.evaluation.attacked


def _compared(counts: Counts, reference: Counts | None) -> dict[str, Any]:
    values, others = metrics(counts), None if reference is None else metrics(reference)
    intervals = None if reference is None else paired_bootstrap(counts, reference)
    row: dict[str, Any] = {}
    for name in (metric.name for metric in CURVES):
        row[name] = values[name]
        row[f'{name} difference'] = others and values[name] - others[name]
        row[f'{name} interval'] = intervals and intervals[name]
    return row


def paired_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Returns the rows in percent, with the differences to the first run and their intervals."""
    first = rows[0]['run']
    titles = (cell for metric in CURVES for cell in (f'{metric.label}, %', f'less {first} [95 %]'))
    body = []
    for row in rows:
        cells = [row['radius'], row['run'], row['scheme'], str(row['iterations'] or '-'), row['attack']]
        for metric in CURVES:
            cells += [percent(row[metric.name]), _difference(row, metric.name)]
        body.append(tuple(cells))
    header = ('radius', 'run', 'scheme', 'iterations', 'attack', *titles)
    return Table(header, tuple(body), text_columns=5, numbers=(3,))


def paired_data(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Returns the rows as fractions in full precision, with the ends of intervals in separate columns."""
    names = ['radius', 'run', 'scheme', 'iterations', 'attack', 'images']
    suffixes = ('', ' difference', ' difference low', ' difference high')
    header = (*names, *(f'{metric.name}{suffix}' for metric in CURVES for suffix in suffixes))
    body = []
    for row in rows:
        values = [row[name] for name in names]
        for name in (metric.name for metric in CURVES):
            values += [row[name], row[f'{name} difference'], *(row[f'{name} interval'] or (None, None))]
        body.append(tuple(values))
    return Table(header, tuple(body), text_columns=5)


def _difference(row: Mapping[str, Any], metric: str) -> str:
    difference, interval = row[f'{metric} difference'], row[f'{metric} interval']
    if difference is None:
        return ''
    text = f'{100 * difference:+.2f}'
    return text if interval is None else f'{text} [{100 * interval[0]:+.2f}, {100 * interval[1]:+.2f}]'
