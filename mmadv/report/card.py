"""The robustness card of a model as types: what ``card.json`` holds, made from the results of its parts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mmadv.fields import NotNegative
from mmadv.report.calibration import CalibrationSummary
from mmadv.report.certificates import CertificatesSummary
from mmadv.report.corruptions import ALL, CorruptionsSummary
from mmadv.report.evaluation import CLEAN, Amount
from mmadv.report.json_files import JsonFile
from mmadv.report.metrics import HEADLINE
from mmadv.report.run import CheckpointFile, RunResults
from mmadv.report.schema import Schema

SCHEMA = 'mmadv/card'
SCHEMA_VERSION = 1
FILE = JsonFile('card', SCHEMA, SCHEMA_VERSION, 'mmadv card')
CARD = 'card.json'
MIOU, RETENTION, CERTIFIED, ECE = 'mIoU', 'retention', 'certified_accuracy', 'ece'
Range95 = tuple[Amount, Amount]


class CardMetric(NamedTuple):
    """A metric of a card: its label, and whether a higher value is better; None if neither is."""

    label: str
    higher: bool | None = True
    percent: bool = True


CARD_METRICS = {
    **{metric.name: CardMetric(metric.label) for metric in HEADLINE},
    RETENTION: CardMetric('retention'),
    CERTIFIED: CardMetric('certified accuracy'),
    'certified_mIoU': CardMetric('certified mIoU'),
    'guaranteed_mIoU': CardMetric('guaranteed mIoU'),
    'abstained': CardMetric('abstained', higher=False),
    ECE: CardMetric('ECE', higher=False),
    'brier': CardMetric('Brier score', higher=False, percent=False),
    'entropy_right': CardMetric('entropy, right pixels', higher=None, percent=False),
    'entropy_wrong': CardMetric('entropy, wrong pixels', higher=None, percent=False),
    'aurc': CardMetric('AURC', higher=False),
}
CALIBRATION_METRICS = (ECE, 'brier', 'entropy_right', 'entropy_wrong', 'aurc')


@dataclass(frozen=True)
class CardRow(Schema):
    """The numbers of a part under one condition.

    Attributes:
        condition: 'clean', a radius, a corruption, or another condition of the part.
        values: metric -> value as a fraction; None if it is undefined.
        intervals: metric -> 95 % interval over resampled images; None if there is none.
    """

    condition: str
    values: dict[str, Amount | None]
    intervals: dict[str, Range95 | None]


@dataclass(frozen=True)
class CardFinding(Schema):
    """A sanity check: its ``name``, whether it ``passed``, and its ``evidence``."""

    name: str
    passed: bool
    evidence: str


@dataclass(frozen=True)
class CardPart(Schema):
    """The results of a part.

    Attributes:
        title: what the part measures.
        words: the options that decide its numbers, without files.
        command: the sub-command that measures the part.
        images: number of images that count.
        passes: radius -> mean forward and backward passes of the attack for each image.
        rows: the numbers.
        findings: the sanity checks.
        notes: the reasons to doubt the numbers.
        source: checksum of the source model of a transfer attack; empty without one.
        seen_from: config of the source model.
        config: the part's own config, below the card's folder; empty for that of the card.
    """

    title: str
    words: tuple[str, ...]
    command: str
    images: NotNegative
    passes: dict[str, tuple[Amount, Amount]]
    rows: tuple[CardRow, ...]
    findings: tuple[CardFinding, ...] = ()
    notes: tuple[str, ...] = ()
    source: str = ''
    seen_from: str = ''
    config: str = ''


@dataclass(frozen=True)
class Card(Schema):
    """The robustness card of one model.

    Attributes:
        budget: 'quick' or 'paper'.
        config: path of the model's config.
        checkpoint: the weights.
        dataset: type of the dataset.
        size: number of images of the dataset.
        limit: number of images of the card; None for all.
        data: checksum of the names and files of the card's images.
        classes: the classes.
        seed: seed of all noise.
        versions: package -> version.
        parts: name -> results.
        left_out: name of a part that is not measured -> the reason.
    """

    budget: str
    config: str
    checkpoint: CheckpointFile
    dataset: str
    size: NotNegative
    limit: int | None
    data: str
    classes: tuple[str, ...]
    seed: NotNegative
    versions: dict[str, Any]
    parts: dict[str, CardPart]
    left_out: dict[str, str]

    @property
    def images(self) -> int:
        """Returns the number of images of the card."""
        return self.size if self.limit is None else min(self.limit, self.size)

    def settings(self) -> dict[str, Any]:
        """Returns what two cards must share so that their numbers compare, beside the model."""
        return {
            'budget': self.budget,
            'dataset': self.dataset,
            'classes': list(self.classes),
            'images': self.images,
            'data': self.data,
            'seed': self.seed,
            'parts': {name: [' '.join(part.words), part.source] for name, part in self.parts.items()},
        }

    def numbers(self) -> Iterator[tuple[tuple[str, str, str], float | None, Range95 | None]]:
        """Yields (part, condition, metric), the value and its interval."""
        for name, part in self.parts.items():
            for row in part.rows:
                for metric, value in row.values.items():
                    yield (name, row.condition, metric), value, row.intervals.get(metric)

    def text(self) -> str:
        """Returns the content of ``card.json``."""
        content = {'schema': SCHEMA, 'schema_version': SCHEMA_VERSION, **self.to_json()}
        return json.dumps(content, indent=1, allow_nan=False) + '\n'

    @classmethod
    def load(cls, folder: str | Path) -> Card:
        """Returns the card of a folder that ``mmadv card`` wrote.

        Raises:
            UserError: there is no card, it is of another schema version, or a value does not fit.
        """
        path = Path(folder) / CARD
        return cls.from_json(FILE.read(path), f'card {path}')


def is_card(folder: str | Path) -> bool:
    """Returns whether a folder holds a card."""
    return (Path(folder) / CARD).is_file()


@dataclass(frozen=True)
class Rates(Schema):
    """The times of the probe, in seconds.

    Attributes:
        overhead: a run of a part beside its passes: building the model, reading files, writing results.
        forward: a forward pass of one image.
        pair: a forward and a backward pass of one image.
        source_pair: the same for the source model of a transfer attack.
        corrupted: making one corrupted image.
    """

    overhead: Amount
    forward: Amount
    pair: Amount
    source_pair: Amount
    corrupted: Amount


@dataclass(frozen=True)
class Cost(Schema):
    """The cost of a part.

    Attributes:
        title: what the part measures.
        images: number of images.
        forward: the most forward passes for each image.
        backward: the most backward passes for each image.
        once: forward and backward passes for all images together, which train a perturbation.
        seconds: the predicted time.
        actual: the time that the part took; None before its end.
    """

    title: str
    images: NotNegative
    forward: NotNegative
    backward: NotNegative
    once: NotNegative
    seconds: Amount
    actual: Amount | None = None


def part_of_run(run: RunResults, title: str, words: tuple[str, ...], command: str) -> CardPart:
    """Returns the results of a part from those of its run."""
    evaluation = run.evaluation
    measured = {kind.name: summary for kind, summary in run.summaries()}
    trust = measured.get('trust')
    warnings = [note for kind, summary in run.summaries() for note in kind.warnings(summary)]
    failed = [f'{image.image} is in no number: {image.reason}' for image in evaluation.failed]
    return CardPart(
        title=title,
        words=words,
        command=command,
        images=evaluation.images,
        passes={
            radius: (result.passes.forward.mean_per_image, result.passes.backward.mean_per_image)
            for radius, result in evaluation.attacked.items()
        },
        rows=tuple(_rows(run, measured)),
        findings=tuple(CardFinding(one.name, one.passed, one.evidence) for one in trust.findings) if trust else (),
        notes=(*failed, *run.caveats, *warnings),
        source=run.source.sha256 if run.source else '',
        seen_from=run.source.config if run.source else '',
    )


def _rows(run: RunResults, measured: Mapping[str, Any]) -> Iterator[CardRow]:
    if 'certificates' in measured:
        yield from _certified(measured['certificates'])
        return
    if 'calibration' in measured:
        yield from _calibrated(measured['calibration'])
        return
    if 'corruptions' in measured:
        yield from _corrupted(measured['corruptions'])
        return
    evaluation = run.evaluation
    for column, values in evaluation.worst_cases.items():
        if column != CLEAN or not evaluation.attacked or run.region or 'region_distance' in measured:
            yield CardRow(
                column,
                {one.name: values[one.name] for one in HEADLINE},
                {one.name: evaluation.interval(column, one.name) for one in HEADLINE},
            )


def _corrupted(summary: CorruptionsSummary) -> Iterator[CardRow]:
    for name, mean in {ALL: summary.mean, **summary.means}.items():
        yield CardRow(
            name,
            {MIOU: mean.miou, RETENTION: mean.retention},
            {MIOU: mean.interval, RETENTION: mean.retention_interval},
        )


def _certified(summary: CertificatesSummary) -> Iterator[CardRow]:
    yield CardRow('smoothed', {'aAcc': summary.smoothed['aAcc'], MIOU: summary.smoothed['mIoU']}, {})
    for one in summary.certified:
        values = {
            CERTIFIED: one.accuracy,
            'certified_mIoU': one.miou,
            'guaranteed_mIoU': one.guaranteed_miou,
            'abstained': one.abstained,
        }
        yield CardRow(f'{one.radius:.4f}', values, {})


def _calibrated(summary: CalibrationSummary) -> Iterator[CardRow]:
    for condition, result in summary.conditions.items():
        yield CardRow(
            condition,
            {name: result.values[name] for name in CALIBRATION_METRICS},
            {name: result.intervals.get(name) for name in CALIBRATION_METRICS},
        )
