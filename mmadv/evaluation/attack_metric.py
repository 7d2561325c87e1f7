"""Accuracy and IoU of a segmentor before and after an attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger, print_log
from mmseg.registry import METRICS

from mmadv.errors import UserError
from mmadv.report.table import class_table, summary_table
from mmadv.robustness import Counts, count, metrics

SCALARS = ('aAcc', 'aAcc_image_mean', 'mAcc', 'mIoU')


@METRICS.register_module()
class AttackMetric(BaseMetric):
    """Metrics of the clean and the attacked predictions that ``AttackTestLoop`` attaches to the data samples.

    Per image only small counts are kept, so that processes collect quickly. Images are told apart by their index in
    the dataset: what a distributed sampler repeats counts once. After ``evaluate``, ``evaluation`` holds
    all numbers, per class too, as JSON-able fractions (None where undefined), and ``per_image`` one entry
    per image; both are there on the main process only.

    Args:
        collect_device: 'cpu' (through files) or 'gpu' (through the process group).
        prefix: of the metrics' names.
        collect_dir: shared folder for ``collect_device='cpu'``.
    """

    default_prefix = 'attack'

    def __init__(
        self,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.evaluation: dict[str, Any] = {}
        self.per_image: list[dict[str, Any]] = []

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Counts the pixels of one batch of data samples."""
        for sample in data_samples:
            if 'adversarial' not in sample:
                raise UserError(
                    f'{type(self).__name__} found no attacked predictions; '
                    "set test_cfg = dict(type='AttackTestLoop', ...)"
                )
            label, ignore_index = sample['gt_sem_seg']['data'].squeeze(0), sample['attack']['ignore_index']
            self.results.append(
                {
                    'index': int(sample['sample_idx']),
                    'image': sample['image_name'],
                    'title': sample['attack']['title'],
                    'ignore_index': ignore_index,
                    'passes': sample['attack']['passes'],
                    'clean': self._count(sample['pred_sem_seg']['data'].squeeze(0), label, ignore_index),
                    'attacked': {
                        radius: {name: self._count(one, label, ignore_index) for name, one in predictions.items()}
                        for radius, predictions in sample['adversarial'].items()
                    },
                }
            )

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Returns aAcc, mAcc, mIoU and the image mean of aAcc, clean and at every radius, by name.

        Args:
            results: one record of :meth:`process` per image, of all processes.
        """
        records = list({record['index']: record for record in sorted(results, key=lambda r: r['index'])}.values())
        clean = _gather([record['clean'] for record in records])
        if not clean.valid.any():
            raise UserError(f'none of the {len(records)} images has a labelled pixel; there is nothing to measure')
        self.per_image = [
            {
                'index': record['index'],
                'image': record['image'],
                'valid_pixels': int(valid),
                'clean': None if np.isnan(accuracy) else float(accuracy),
                'attacked': {},
            }
            for record, valid, accuracy in zip(records, clean.valid, clean.accuracy, strict=True)
        ]
        self.evaluation = {
            'title': records[0]['title'],
            'ignore_index': int(records[0]['ignore_index']),
            'classes': list(self.dataset_meta['classes']),
            'images': int((clean.valid > 0).sum()),
            'excluded': [record['image'] for record, valid in zip(records, clean.valid, strict=True) if not valid],
            'clean': jsonable(metrics(clean)),
            'attacked': {radius: self._attacked(radius, records) for radius in records[0]['attacked']},
        }
        logger = MMLogger.get_current_instance()
        print_log(f'\n{class_table(self.evaluation)}\n{summary_table(self.evaluation)}', logger=logger)
        return self._scalars()

    def _count(self, prediction: torch.Tensor, label: torch.Tensor, ignore_index: int) -> np.ndarray:
        counts = count(prediction.long()[None], label[None], len(self.dataset_meta['classes']), ignore_index)
        return np.concatenate([counts.intersection, counts.prediction, counts.label])

    def _attacked(self, radius: str, records: list[dict]) -> dict[str, Any]:
        """Returns the entry of one radius, and adds its accuracies to ``per_image``."""
        names = list(records[0]['attacked'][radius])
        members = {name: _gather([record['attacked'][radius][name] for record in records]) for name in names}
        worst, choice = self._summarise(members)
        passes = np.array([record['passes'][radius] for record in records], dtype=np.int64)
        attackable = worst.valid > 0
        for n, image in enumerate(self.per_image):
            image['attacked'][radius] = {
                'members': {name: _number(counts.accuracy[n]) for name, counts in members.items()},
                'worst_case': _number(worst.accuracy[n]),
                'worst_member': names[choice[n]] if attackable[n] else None,
                'forward_passes': int(passes[n, 0]),
                'backward_passes': int(passes[n, 1]),
            }
        return {
            'worst_case': jsonable({**metrics(worst), **self._extra(members)}),
            'members': {name: jsonable(metrics(counts)) for name, counts in members.items()} if len(names) > 1 else {},
            'passes': {
                name: {'total': int(column.sum()), 'mean_per_image': float(column[attackable].mean())}
                for name, column in zip(('forward', 'backward'), passes.T, strict=True)
            },
        }

    def _summarise(self, members: Mapping[str, Counts]) -> tuple[Counts, np.ndarray]:
        """Returns the counts that stand for the attack, and the index of the member they are from, per image."""
        if len(members) != 1:
            raise UserError(
                f'AttackMetric measures single attacks, found the members {", ".join(members)}; use SEAMetric'
            )
        (counts,) = members.values()
        return counts, np.zeros(len(counts), dtype=np.int64)

    def _extra(self, members: Mapping[str, Counts]) -> dict[str, float]:
        """Returns further metrics of the attack as a whole."""
        return {}

    def _scalars(self) -> dict[str, float]:
        scalars = {f'clean/{name}': self.evaluation['clean'][name] for name in SCALARS}
        for radius, attacked in self.evaluation['attacked'].items():
            for member, values in {**attacked['members'], 'worst_case': attacked['worst_case']}.items():
                scalars.update(
                    {f'{radius}/{member}/{name}': values[name] for name in (*SCALARS, 'mIoU_greedy') if name in values}
                )
        return scalars


def jsonable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns metrics as plain Python numbers and lists, None for nan."""
    return {
        name: [_number(item) for item in value] if isinstance(value, np.ndarray) else _number(value)
        for name, value in values.items()
    }


def _number(value: Any) -> float | int | None:
    if isinstance(value, int):
        return value
    return None if np.isnan(value) else float(value)


def _gather(counts: Sequence[np.ndarray]) -> Counts:
    stacked = np.stack(counts)  # (N, 3, K)
    return Counts(stacked[:, 0], stacked[:, 1], stacked[:, 2])
