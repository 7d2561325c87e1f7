"""Accuracy and IoU of a segmentor before and after an attack."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from mmengine.dist import all_gather_object, get_world_size
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger, print_log
from mmseg.registry import METRICS

from mmadv.errors import UserError
from mmadv.evaluation.image_record import AreaTable, FailedRecord, ImageRecord, Records, to_counts
from mmadv.fields import checked
from mmadv.report.evaluation import (
    CLEAN,
    AttackedImage,
    Evaluation,
    FailedImage,
    ImageResult,
    MetricValues,
    MinimisedMIoU,
    PassCount,
    Passes,
    RadiusResult,
    Wins,
)
from mmadv.report.metrics import METRICS as ALL_METRICS
from mmadv.report.metrics import PREDICTION_METRICS
from mmadv.report.table import class_table, summary_table
from mmadv.robustness import Counts, LowestMIoU, bootstrap, metrics, wins


@METRICS.register_module()
@checked
class AttackMetric(BaseMetric):
    """Metrics of the clean and the attacked predictions that ``AttackTestLoop`` attaches to the data samples.

    The metric keeps only small counts per image, as JSON text. Processes therefore collect quickly, and memory use is
    small. The index in the dataset identifies an image. If several processes have the same image, it counts once.

    After ``evaluate``, ``evaluation`` holds all numbers, also per class, as fractions (None if undefined).
    ``per_image`` holds the accuracies and ``records`` the counts of each image. Only the main process has them.

    Args:
        collect_device: 'cpu' (through files) or 'gpu' (through the process group).
        prefix: prefix of the metrics' names.
        collect_dir: shared folder for ``collect_device='cpu'``.
        ignore_index: label of the pixels that all metrics leave out, as in IoUMetric.
    """

    default_prefix = 'attack'

    def __init__(
        self,
        collect_device: Literal['cpu', 'gpu'] = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
        ignore_index: int = 255,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.ignore_index = ignore_index
        self.evaluation: Evaluation | None = None
        self.per_image: list[ImageResult] = []
        self.records: Sequence[ImageRecord] = []

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Stores the records of one batch of data samples."""
        for sample in data_samples:
            if 'attack_record' not in sample:
                raise UserError(
                    f'{type(self).__name__} found no attacked predictions; '
                    "set test_cfg = dict(type='AttackTestLoop', ...)"
                )
            self.adopt([sample['attack_record']])

    def adopt(self, records: Iterable[ImageRecord | FailedRecord]) -> None:
        """Stores the results of images that were predicted before, and the reports of images that failed."""
        self.results += [record.to_text() for record in records]

    def evaluate(self, size: int) -> dict[str, float | None]:
        """Returns the metrics over the images of all processes, whose numbers of images may differ."""
        # mmengine assumes that all processes have the same number of results.
        longest = max(all_gather_object(len(self.results)))
        self.results += [''] * (longest - len(self.results))
        return super().evaluate(longest * get_world_size())

    def compute_metrics(self, results: list) -> dict[str, float | None]:
        """Returns aAcc, mAcc, mIoU and the image mean of aAcc, clean and at every radius, by name.

        Args:
            results: the records of all processes, as one JSON text per image, and empty texts.
        """
        records = Records(text for text in results if text)
        if not records:
            reasons = [record.failed for record in records.failed]
            raise UserError(reasons[0] if reasons else 'there is no image to measure; check the dataset')
        clean = to_counts((record.clean for record in records), len(self.dataset_meta['classes']))
        if not clean.valid.any():
            raise UserError(f'none of the {len(records)} images has a labelled pixel; there is nothing to measure')
        self.records, first = records, records[0]
        intervals: dict[str, Any] = {CLEAN: bootstrap(clean)}
        images: list[dict[str, AttackedImage]] = [{} for _ in range(len(records))]
        attacked = {radius: self._attacked(radius, records, images, intervals) for radius in first.attacked}
        self.per_image = [
            ImageResult(record.index, record.image, int(valid), number(accuracy), radii)
            for record, valid, accuracy, radii in zip(records, clean.valid, clean.accuracy, images, strict=True)
        ]
        self.evaluation = Evaluation(
            title=first.title,
            ignore_index=first.ignore_index,
            classes=tuple(self.dataset_meta['classes']),
            images=int((clean.valid > 0).sum()),
            excluded=tuple(record.image for record, valid in zip(records, clean.valid, strict=True) if not valid),
            failed=tuple(FailedImage(record.image, record.failed) for record in records.failed),
            clean=metric_values(clean),
            intervals=intervals,
            attacked=attacked,
        )
        logger = MMLogger.get_current_instance()
        print_log(f'\n{class_table(self.evaluation)}\n{summary_table(self.evaluation)}', logger=logger)
        return self._scalars(self.evaluation)

    def _attacked(
        self,
        radius: str,
        records: Records,
        images: Sequence[dict[str, AttackedImage]],
        intervals: dict[str, Any],
    ) -> RadiusResult:
        """Returns the results of one radius, and adds them to ``images`` and ``intervals``."""
        names = list(records[0].attacked[radius])
        tables = {name: AreaTable() for name in names}
        passes, reached = np.zeros((len(records), 2), dtype=np.int64), []
        for n, record in enumerate(records):
            for name, table in tables.items():
                table.append(record.attacked[radius][name])
            passes[n] = record.passes[radius]
            if record.reached is not None:
                reached.append(record.reached[radius])
        members = {name: table.counts(len(self.dataset_meta['classes'])) for name, table in tables.items()}
        worst, choice = self._summarise(members)
        intervals[radius] = bootstrap(worst)
        lowest, searched = self._search(members), {}
        if lowest is not None:
            searched = {
                'mIoU_greedy': number(lowest.starts['worst_case']),
                'mIoU_minimised': number(lowest.value),
                'mIoU_lower_bound': number(lowest.lower_bound),
            }
            intervals[radius]['mIoU_minimised'] = bootstrap(lowest.counts)['mIoU']
        attackable = worst.valid > 0
        accuracies = {name: counts.accuracy for name, counts in members.items()}
        for n, (image, accuracy) in enumerate(zip(images, worst.accuracy, strict=True)):
            image[radius] = AttackedImage(
                members={name: number(values[n]) for name, values in accuracies.items()},
                worst_case=number(accuracy),
                worst_member=names[choice[n]] if attackable[n] else None,
                forward_passes=int(passes[n, 0]),
                backward_passes=int(passes[n, 1]),
            )
        ensemble = len(names) > 1
        return RadiusResult(
            worst_case=metric_values(worst).with_scalars({**searched, **_target_rates(reached)}),
            members={name: metric_values(counts) for name, counts in members.items()} if ensemble else {},
            wins={name: Wins(**won) for name, won in wins(members).items()} if ensemble else {},
            passes=Passes(*(PassCount.of(int(column.sum()), column[attackable].tolist()) for column in passes.T)),
            minimised=None if lowest is None else MinimisedMIoU(**lowest.to_dict()),
        )

    def _summarise(self, members: Mapping[str, Counts]) -> tuple[Counts, np.ndarray]:
        """Returns the counts that represent the attack, and for each image the index of the member they come from."""
        if len(members) != 1:
            raise UserError(
                f'AttackMetric measures single attacks, found the members {", ".join(members)}; use EnsembleMetric'
            )
        (counts,) = members.values()
        return counts, np.zeros(len(counts), dtype=np.int64)

    def _search(self, members: Mapping[str, Counts]) -> LowestMIoU | None:
        """Returns the lowest mIoU over all choices of members, or None if there is only one member."""
        return None

    @staticmethod
    def _scalars(evaluation: Evaluation) -> dict[str, float | None]:
        listed = [name for name, metric in ALL_METRICS.items() if metric.of != 'target']
        scalars = {f'{CLEAN}/{name}': evaluation.clean[name] for name in listed if name in evaluation.clean}
        for radius, result in evaluation.attacked.items():
            for member, values in {**result.members, 'worst_case': result.worst_case}.items():
                scalars.update({f'{radius}/{member}/{name}': values[name] for name in listed if name in values})
        return scalars


def _target_rates(reached: Sequence[Sequence[int]]) -> dict[str, float]:
    """Returns the share of target pixels that was reached, over all pixels and as mean over images; {} if none."""
    pairs = np.array([pair for pair in reached if pair[1]], dtype=np.float64).reshape(-1, 2)
    if not len(pairs):
        return {}
    return {
        'target_rate': pairs[:, 0].sum() / pairs[:, 1].sum(),
        'target_rate_image_mean': (pairs[:, 0] / pairs[:, 1]).mean(),
    }


def metric_values(counts: Counts) -> MetricValues:
    """Returns the metrics of counts; nan becomes None."""
    values = metrics(counts)
    return MetricValues(
        scalars={metric.name: number(values[metric.name]) for metric in PREDICTION_METRICS},
        iou=tuple(map(number, values['IoU'])),
        accuracy=tuple(map(number, values['Acc'])),
        images=values['images'],
        pixels=values['pixels'],
    )


def number(value: float) -> float | None:
    """Returns a plain float, or None for nan."""
    return None if np.isnan(value) else float(value)
