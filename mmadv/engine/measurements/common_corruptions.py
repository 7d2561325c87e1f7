"""mIoU under common corruptions: noise, blur, weather and digital faults."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from mmadv.corruptions import (
    CORRUPTIONS,
    FROST,
    SCALES,
    SEVERITIES,
    Severity,
    corruptions_of,
    severities_of,
)
from mmadv.corruptions import frost_photographs as read_photographs
from mmadv.engine.corrupted_images import CorruptedImages
from mmadv.engine.predictor import finite_predictions
from mmadv.errors import UserError
from mmadv.evaluation.attack_metric import number
from mmadv.evaluation.image_record import AreaTable, to_areas, to_counts
from mmadv.report.corruptions import CorruptionsSummary, MeanResult, SeverityResult, header, mean_of, severity_svg
from mmadv.report.measurement import Measurement, Option, Outcome, Section, register_measurement
from mmadv.report.table import Table
from mmadv.robustness import count, metrics, percentile_interval, resampled_miou

FILE_NAME = 'corruptions.csv'


@register_measurement
@dataclass
class CommonCorruptions(Measurement):
    """Measures the mIoU under the common corruptions of ImageNet-C; docs/corruptions.md describes them.

    The images are corrupted as they enter the network, after the resizing of the pipeline; in the space 'image' they
    are corrupted as they are in their files. The noise of an image depends only on the run's seed and the name of the
    image's file. The record of an image has corruption -> severity -> areas.

    Args:
        corruptions: names or groups; empty for all 15.
        severities: severities from 1 to 5.
        scale: 'published' takes lengths in pixels as published; 'image' scales them with the image.
        frost_photographs: folder of the photographs of frost; None for those of the package ``imagecorruptions``.
    """

    corruptions: Sequence[str] = ()
    severities: Sequence[Severity] = SEVERITIES
    scale: Literal['published', 'image'] = 'published'
    frost_photographs: str | None = None

    name: ClassVar[str] = 'corruptions'
    key: ClassVar[str] = 'corruptions'
    summary: ClassVar[Any] = CorruptionsSummary
    options: ClassVar[tuple[Option, ...]] = (
        Option(
            '--corruptions',
            'corruptions',
            {
                'nargs': '*',
                'metavar': 'NAME',
                'help': 'measure the mIoU under common corruptions: names such as fog, or noise, blur, weather, '
                'digital (default: all 15)',
            },
        ),
        Option(
            '--severities',
            'severities',
            {'nargs': '+', 'metavar': 'N', 'help': 'severities of the corruptions (default: 1 2 3 4 5)'},
        ),
        Option(
            '--corruption-scale',
            'scale',
            {
                'choices': SCALES,
                'help': 'lengths in pixels as published, for images of 224x224, or scaled to the image '
                '(default: published)',
            },
        ),
        Option(
            '--frost-photographs',
            'frost_photographs',
            {
                'metavar': 'DIR',
                'help': 'folder of frost1.png to frost5.jpg (default: that of the package imagecorruptions)',
            },
        ),
    )

    def __post_init__(self) -> None:
        self._corruptions = corruptions_of(self.corruptions, 'CommonCorruptions.corruptions')
        self._severities = severities_of(self.severities, 'CommonCorruptions.severities')
        if FROST not in self._corruptions and self.frost_photographs is not None:
            raise UserError(
                f'CommonCorruptions.frost_photographs {self.frost_photographs} is for frost; add frost to '
                'CommonCorruptions.corruptions, or leave it out'
            )

    def settings(self, spec: Any) -> Any:
        """Returns names, severities and scale, and a checksum of the photographs if frost needs them."""
        settings = {'corruptions': list(self._corruptions), 'severities': list(self._severities), 'scale': self.scale}
        if FROST not in self._corruptions:
            return settings
        digest = hashlib.blake2b(digest_size=8)
        for photograph in read_photographs(self.frost_photographs):
            digest.update(photograph.tobytes())
        return {**settings, 'frost': digest.hexdigest()}

    def check(self, spec: Any) -> None:
        if FROST in self._corruptions:
            try:
                read_photographs(self.frost_photographs)
            except UserError as error:
                raise UserError(f'CommonCorruptions.frost_photographs: {error}') from None

    def measure(self, context: Any, group: Any) -> list[Any]:
        """Returns corruption -> severity as text -> areas, for each image."""
        corrupted = CorruptedImages(group, context, self.scale, self.frost_photographs)
        values: list[dict[str, dict[str, Any]]] = [{name: {} for name in self._corruptions} for _ in group.names]
        for name in self._corruptions:
            for severity in self._severities:
                images = corrupted(name, severity)
                what = f'the image with {name} of severity {severity},'
                predictions = finite_predictions(group.model, images, group.names, what).cpu()
                for value, prediction, label in zip(values, predictions, group.scored_labels, strict=True):
                    classes, ignored = context.predictor.num_classes, group.ignore_index
                    counts = count(prediction[None], label[None], classes, ignored, group.void)
                    value[name][str(severity)] = to_areas(counts)
        return values

    def summarise(self, context: Any, outcome: Outcome) -> CorruptionsSummary:
        """Returns the metrics over all images, and the means over severities and corruptions with their intervals."""
        classes = len(outcome.evaluation.classes)
        keys = [(name, str(severity)) for name in self._corruptions for severity in self._severities]
        tables = {key: AreaTable() for key in keys}
        for record in outcome.records:
            value = record.measurements[self.key]
            for (name, severity), table in tables.items():
                table.append(value[name][severity])
        clean = to_counts((record.clean for record in outcome.records), classes)
        results: dict[str, dict[str, SeverityResult]] = {name: {} for name in self._corruptions}
        drawn: dict[str, list[np.ndarray]] = {name: [] for name in self._corruptions}
        for (name, severity), table in tables.items():
            counts = table.counts(classes)
            values, miou = metrics(counts), resampled_miou(counts)
            accuracy = number(values['aAcc'])
            results[name][severity] = SeverityResult(accuracy, number(values['mIoU']), percentile_interval(miou))
            drawn[name].append(miou)
        reference = outcome.evaluation.clean['mIoU'], resampled_miou(clean)
        means = {
            name: _mean([one.miou for one in own.values()], drawn[name], *reference) for name, own in results.items()
        }
        everything = [one.miou for own in results.values() for one in own.values()]
        mean = _mean(everything, [miou for own in drawn.values() for miou in own], *reference)
        return CorruptionsSummary(self.scale, self._severities, results, means, mean)

    def write(self, context: Any, folder: Path, outcome: Outcome, summary: CorruptionsSummary) -> CorruptionsSummary:
        """Writes one row for each corruption and severity, as fractions."""
        summary.long_table().write_csv(folder / FILE_NAME)
        return summary

    @classmethod
    def sentences(cls, summary: CorruptionsSummary) -> list[str]:
        return [summary.sentence()]

    @classmethod
    def text(cls, summary: CorruptionsSummary) -> str:
        return summary.table().text()

    @classmethod
    def tables(cls, summary: CorruptionsSummary) -> list[Table]:
        return [summary.table()]

    @classmethod
    def curves(cls, summaries: Mapping[str, CorruptionsSummary]) -> list[str]:
        """Returns a plot of the mean mIoU over the severity."""
        return [severity_svg(summaries)]

    @classmethod
    def section(cls, summaries: Mapping[str, CorruptionsSummary]) -> Section:
        """Returns the mean of each corruption and its retention, a row for each run and corruption."""
        severities = next(iter(summaries.values())).severities
        same = all(summary.severities == severities for summary in summaries.values())
        rows = tuple(
            (name, *(row if same else (row[0], *row[-2:])))
            for name, summary in summaries.items()
            for row in summary.rows()
        )
        titles = header(severities if same else ())
        table = Table(('run', *titles), rows, text_columns=2, caption='mIoU under corruptions, %', grouped=True)
        return Section('Common corruptions', table, {name: [] for name in summaries})

    @classmethod
    def check_summary(cls, summary: CorruptionsSummary, evaluation: Any, where: str) -> None:
        unknown = [name for name in summary.corrupted if name not in CORRUPTIONS]
        if unknown:
            raise UserError(f'{where}.corrupted has the unknown corruption {unknown[0]}')
        summary.check(where)


def _mean(
    values: Sequence[float | None], drawn: Sequence[np.ndarray], clean: float | None, clean_drawn: np.ndarray
) -> MeanResult:
    """Returns the mean of mIoUs and its retention, from the values and their resamples."""
    resampled = np.mean(drawn, axis=0)
    with np.errstate(invalid='ignore', divide='ignore'):
        ratios = np.where(clean_drawn > 0, resampled / clean_drawn, np.nan)
    mean = mean_of(list(values))
    return MeanResult(
        mean,
        percentile_interval(resampled),
        None if mean is None or not clean else mean / clean,
        percentile_interval(ratios),
    )
