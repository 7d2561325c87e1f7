"""Converts Cityscapes' annotations from 34 label ids to the 19 evaluated classes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from mmseg.datasets import CityscapesDataset

from mmadv.datasets.prepare.files import VOID, Count, Job, files_with_suffix, prepare_label_maps, read_label_map
from mmadv.errors import UserError

CLASSES = len(CityscapesDataset.METAINFO['classes'])
PALETTE = CityscapesDataset.METAINFO['palette']
SPLITS = {'train': 2975, 'val': 500}
# The label id of each class, in the order of the classes: road, sidewalk, building, wall, fence, pole, traffic light,
# traffic sign, vegetation, terrain, sky, person, rider, car, truck, bus, train, motorcycle, bicycle.
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
HIGHEST_ID = 33
IMAGE_SUFFIX = '_leftImg8bit.png'


def prepare_cityscapes(root: Path) -> list[str]:
    """Writes the ``_gtFine_labelTrainIds.png`` of every image, and returns lines that report the result.

    Args:
        root: the folder with ``leftImg8bit`` and ``gtFine``.

    Raises:
        UserError: a folder, image or annotation is missing or broken.
    """
    report = []
    for split, expected in SPLITS.items():
        images = files_with_suffix(root / 'leftImg8bit' / split, IMAGE_SUFFIX, 'leftImg8bit_trainvaltest.zip')
        jobs = []
        for image in images:
            stem = image.name.removesuffix(IMAGE_SUFFIX)
            folder = root / 'gtFine' / split / image.parent.name
            ids = folder / f'{stem}_gtFine_labelIds.png'
            jobs.append(Job(image, folder / f'{stem}_gtFine_labelTrainIds.png', partial(train_ids, ids), ids))
        report.append(prepare_label_maps(jobs, Count(split, CLASSES, expected), PALETTE).describe())
    return report


def train_ids(path: Path) -> np.ndarray:
    """Returns the (H, W) uint8 classes of an annotation with label ids; pixels that are not evaluated are 255.

    Raises:
        UserError: the file is unreadable, or holds a value that is not a label id.
    """
    ids = read_label_map(path)
    if ids.max() > HIGHEST_ID:
        raise UserError(f"'{path}' holds the value {ids.max()}; label ids are 0 to {HIGHEST_ID}: fetch it again")
    table = np.full(VOID + 1, VOID, np.uint8)
    table[list(LABEL_IDS)] = np.arange(CLASSES)
    return table[ids]
