"""Certificates of randomized smoothing for each image."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mmadv.attacks import derive_seed
from mmadv.engine.data import evenly_spaced
from mmadv.engine.example_collector import displayed
from mmadv.engine.predictor import ImageFailed
from mmadv.errors import UserError
from mmadv.evaluation.attack_metric import number
from mmadv.evaluation.image_record import to_areas, to_counts
from mmadv.fields import Positive
from mmadv.models.batches import check_labels
from mmadv.printing import printable
from mmadv.report.certificates import (
    COLUMNS,
    CertificatePicture,
    CertificatesSummary,
    CertifiedLevels,
    CertifiedRadius,
    Smoothing,
    certificate_figure,
    hierarchy_columns,
)
from mmadv.report.drawing import draw_file, plain_text
from mmadv.report.measurement import Measurement, Outcome, Picture, Section, register_measurement
from mmadv.report.table import Table
from mmadv.robustness import (
    Certificate,
    Certifier,
    Hierarchy,
    NonFiniteNoisyLogits,
    certified_counts,
    count,
    metrics,
    worst_iou,
)
from mmadv.robustness.certification import level_counts

FILE_NAME = 'certificates.csv'
FOLDER = 'certificates'
SETTINGS = ('sigma', 'n0', 'n', 'alpha', 'taus', 'kind', 'bound', 'correction', 'sides')


@register_measurement
@dataclass
class Certificates(Measurement):
    """Certifies the smoothed prediction of each image, as ``mmadv certify`` does; see ``mmadv.robustness.Certifier``.

    The noise of an image depends only on the run's seed and the image's name.

    Args:
        sigma: standard deviation of the noise, for images in [0, 1].
        n0: number of draws that select a class.
        n: number of draws that certify.
        alpha: error rate over all pixels of an image.
        taus: thresholds in [0.5, 1), one radius for each.
        kind: 'hard' or 'soft' smoothing.
        bound: bound of the probability; None takes the first bound that fits.
        correction: 'bonferroni' or 'holm'; None takes the first that fits.
        batch: number of draws that go through the model at once; results do not depend on it.
        sides: 'one', or 'two' for the radius of theorem 1, which bounds every other class too.
        hierarchy: levels of groups of classes, as ``mmadv.robustness.Hierarchy`` takes them; a pixel whose class is not
            certified falls back to the finest group that is. None for no groups.
    """

    sigma: float
    n0: Positive = 10
    n: Positive = 100
    alpha: float = 0.001
    taus: Sequence[float] = (0.75,)
    kind: str = 'hard'
    bound: str | None = None
    correction: str | None = None
    batch: Positive = 16
    sides: str = 'one'
    hierarchy: Sequence[Mapping[str, Sequence[str]]] | None = None

    name: ClassVar[str] = 'certificates'
    key: ClassVar[str] = 'certificates'
    summary: ClassVar[Any] = CertificatesSummary

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in SETTINGS}
        self._certifier = Certifier(**{**given, 'taus': tuple(sorted(self.taus))}, batch=self.batch)

    def settings(self, spec: Any) -> Any:
        levels = self.hierarchy
        named = levels and [{group: list(members) for group, members in level.items()} for level in levels]
        return {**{name: getattr(self._certifier, name) for name in SETTINGS}, 'hierarchy': named}

    def prepare(self, context: Any) -> Any:
        """Returns the predictor unchanged, after a check that the hierarchy fits the classes of the data."""
        if self.hierarchy is not None:
            hierarchy = Hierarchy(tuple(context.selection.metainfo['classes']), self.hierarchy)
            self._certifier = replace(self._certifier, hierarchy=hierarchy)
        return context.predictor

    def measure(self, context: Any, group: Any) -> list[Any]:
        """Returns the areas of the smoothed prediction of each image, and its certified areas at every radius."""
        classes = context.predictor.num_classes
        check_labels(list(group.scored_labels), group.names, classes, group.ignore_index)
        drawn, values = self._drawn(context), []
        for n, index in enumerate(group.indexes):
            certificate = self._certify(context, group, n)
            labels = group.scored_labels[n].numpy()
            value = _areas(certificate, labels, classes, group.ignore_index)
            if certificate.levels is not None and self._certifier.hierarchy is not None:
                for one, levels in zip(value['certified'], certificate.levels, strict=True):
                    groups = self._certifier.hierarchy
                    one['levels'] = level_counts(certificate.classes, levels, labels, groups, group.ignore_index)
            values.append(value)
            if index in drawn and context.store is not None:
                image = displayed(group.images[n], context.rgb)
                arrays = {'image': image, 'labels': labels}
                arrays |= {'classes': certificate.classes, 'certified': certificate.certified}
                context.store.save_arrays(_arrays_name(group.names[n]), arrays)
        return values

    def _certify(self, context: Any, group: Any, n: int) -> Certificate:
        name = group.names[n]
        seed = derive_seed('certify', context.spec.seed, name)
        try:
            return self._certifier(group.model, group.images[n], seed=seed)
        except NonFiniteNoisyLogits as error:
            raise ImageFailed(n, f'{name}: {error}') from error
        except UserError as error:
            raise UserError(f'{name}: {error}') from error

    def _drawn(self, context: Any) -> list[int]:
        """Returns the indexes of the images whose certificates are drawn."""
        indexes = context.selection.indexes
        return [indexes[position] for position in evenly_spaced(len(indexes), context.show)]

    def holds(self, context: Any, record: Any) -> bool:
        if self.key not in record.measurements:
            return False
        drawn = record.index in self._drawn(context)
        return not drawn or context.store.load_arrays(_arrays_name(record.image)) is not None

    def summarise(self, context: Any, outcome: Outcome) -> CertificatesSummary:
        """Returns the metrics over all images."""
        values = [record.measurements[self.key] for record in outcome.records]
        classes = len(outcome.evaluation.classes)
        smoothed = metrics(to_counts([value['smoothed'] for value in values], classes))
        certified = []
        for t, (tau, radius) in enumerate(zip(self._certifier.taus, self._certifier.radii, strict=True)):
            counts = to_counts([value['certified'][t]['areas'] for value in values], classes)
            abstained = np.array([value['certified'][t]['abstained'] for value in values])
            found = metrics(counts)
            guaranteed = worst_iou(counts, abstained)
            known = guaranteed[~np.isnan(guaranteed)]
            certified.append(
                CertifiedRadius(
                    tau=tau,
                    radius=radius,
                    accuracy=number(found['aAcc']),
                    miou=number(found['mIoU']),
                    guaranteed_miou=float(known.mean()) if known.size else None,
                    abstained=float(abstained.sum() / found['pixels']) if found['pixels'] else None,
                    iou=tuple(map(number, found['IoU'])),
                    levels=_levels([value['certified'][t].get('levels') for value in values], int(found['pixels'])),
                )
            )
        return CertificatesSummary(
            smoothing=Smoothing(**self.settings(context.spec)),
            smoothed={name: number(smoothed[name]) for name in ('aAcc', 'mIoU')},
            certified=tuple(certified),
        )

    def write(self, context: Any, folder: Path, outcome: Outcome, summary: Any) -> Any:
        """Writes one row of accuracies for each image, and the pictures."""
        self._table(outcome).write_csv(folder / FILE_NAME)
        names = {record.index: record.image for record in outcome.records}
        pictures = []
        for index in self._drawn(context):
            arrays = context.store.load_arrays(_arrays_name(names[index])) if index in names else None
            if arrays is None:  # the model failed on the image, or another machine has them
                print(printable(f'note: image {index} has no stored certificate to draw'), file=sys.stderr)
                continue
            (folder / FOLDER).mkdir(exist_ok=True)
            file = f'{FOLDER}/{index:05d}.png'
            if draw_file(folder / file, partial(self._draw, folder / file, context, arrays)):
                pictures.append(CertificatePicture(file, names[index], index))
        return replace(summary, pictures=tuple(pictures))

    def _table(self, outcome: Outcome) -> Table:
        """Returns the accuracies of each image, as fractions."""
        classes, rows = len(outcome.evaluation.classes), []
        for record in outcome.records:
            value = record.measurements[self.key]
            counts = to_counts([value['smoothed'], *(one['areas'] for one in value['certified'])], classes)
            rows.append((record.index, record.image, int(counts.valid[0]), *map(number, counts.accuracy)))
        radii = (f'certified {tau:g}' for tau in self._certifier.taus)
        return Table(('index', 'image', 'valid_pixels', 'smoothed', *radii), tuple(rows), text_columns=2)

    @plain_text
    def _draw(self, path: Path, context: Any, arrays: Mapping[str, np.ndarray]) -> None:
        figure = certificate_figure(
            arrays['image'],
            arrays['labels'],
            arrays['classes'],
            dict(zip(self._certifier.radii, arrays['certified'], strict=True)),
            palette=context.selection.metainfo['palette'],
            ignore_index=context.predictor.ignore_index,
        )
        figure.savefig(path, dpi=80)

    @classmethod
    def text(cls, summary: CertificatesSummary) -> str:
        return summary.text()

    @classmethod
    def section(cls, summaries: Mapping[str, CertificatesSummary]) -> Section:
        """Returns one row for each run and radius, and the pictures."""
        coarser = max(summary.coarser for summary in summaries.values())
        rows = tuple(
            (name, str(summary.smoothing), *row) for name, summary in summaries.items() for row in summary.rows(coarser)
        )
        columns = ('run', 'smoothing', *COLUMNS, *(hierarchy_columns(coarser) if coarser else ()))
        table = Table(columns, rows, text_columns=2, caption='Certified in L2, %', grouped=True)
        text = '{}: image, label, smoothed prediction, and what is certified; abstained pixels are white'
        pictures = {
            name: [Picture(one.file, text.format(one.image)) for one in summary.pictures]
            for name, summary in summaries.items()
        }
        return Section('Certificates', table, pictures)

    @classmethod
    def files(cls, summary: CertificatesSummary) -> dict[str, str]:
        return {f'pictures[{n}].file': one.file for n, one in enumerate(summary.pictures)}

    @classmethod
    def check_summary(cls, summary: CertificatesSummary, evaluation: Any, where: str) -> None:
        summary.check(len(evaluation.classes), where)


def _areas(certificate: Certificate, labels: np.ndarray, classes: int, ignore_index: int) -> dict[str, Any]:
    """Returns the counts of one image, fit for JSON."""
    certified = []
    for where in certificate.certified:
        counts, abstained = certified_counts(certificate.classes, where, labels, classes, ignore_index)
        certified.append({'areas': to_areas(counts), 'abstained': abstained[0].tolist()})
    smoothed = count(certificate.classes[None], labels[None], classes, ignore_index)
    return {'smoothed': to_areas(smoothed), 'certified': certified}


def _levels(rows: Sequence[list[list[float]] | None], pixels: int) -> CertifiedLevels | None:
    """Returns the certificate with a hierarchy, from the rows of ``level_counts`` of each image; None without one.

    Args:
        rows: of each image; None without a hierarchy.
        pixels: number of valid pixels.
    """
    known = [row for row in rows if row is not None]
    if not known or not pixels:
        return None
    certified, right, gain = np.sum(known, axis=0).T / pixels
    return CertifiedLevels(
        tuple(certified.tolist()),
        tuple(right.tolist()),
        max(1 - float(certified.sum()), 0.0),
        float(gain.sum()),
    )


def _arrays_name(image: str) -> str:
    """Returns the name of an image's stored arrays; an index would change if other images are removed from the data."""
    return f'certificate-{hashlib.blake2b(image.encode(), digest_size=8).hexdigest()}'
