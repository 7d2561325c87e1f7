"""Checks ACDC, driving scenes in fog, at night, in rain and in snow, with the 19 classes of Cityscapes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from mmadv.datasets.prepare.cityscapes import CLASSES, PALETTE, train_ids
from mmadv.datasets.prepare.files import Count, Job, files_with_suffix, prepare_label_maps

# (condition, split) -> number of images.
SPLITS = {
    **{(condition, 'train'): 400 for condition in ('fog', 'night', 'rain', 'snow')},
    **{(condition, 'val'): 106 if condition == 'night' else 100 for condition in ('fog', 'night', 'rain', 'snow')},
}
IMAGE_SUFFIX = '_rgb_anon.png'


def prepare_acdc(root: Path) -> list[str]:
    """Checks the label map of every image, and writes those that are missing; returns lines that report the result.

    ACDC has ``_gt_labelTrainIds.png`` already. If one is missing, it is made from ``_gt_labelIds.png``.

    Args:
        root: the folder with ``rgb_anon`` and ``gt``.

    Raises:
        UserError: a folder, image or annotation is missing or broken.
    """
    report = []
    for (condition, split), expected in sorted(SPLITS.items()):
        images = files_with_suffix(root / 'rgb_anon' / condition / split, IMAGE_SUFFIX, 'rgb_anon_trainvaltest.zip')
        jobs = []
        for image in images:
            stem = image.name.removesuffix(IMAGE_SUFFIX)
            folder = root / 'gt' / condition / split / image.parent.name
            ids = folder / f'{stem}_gt_labelIds.png'
            jobs.append(Job(image, folder / f'{stem}_gt_labelTrainIds.png', partial(train_ids, ids), ids))
        count = Count(f'{condition} {split}', CLASSES, expected)
        report.append(prepare_label_maps(jobs, count, PALETTE).describe())
    return report
