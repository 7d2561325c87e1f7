"""PASCAL VOC 2012 and the Semantic Boundaries Dataset (SBD): label maps and training lists.

VOC 2012 labels 1464 training and 1449 validation images. SBD (Hariharan et al., "Semantic contours from inverse
detectors", 2011) labels 11355 images of VOC 2011. SBD has its own splits: 8498 images for training, 2857 for
validation. The splits of VOC and SBD overlap: some images of VOC's validation set are in SBD's training set, as SBD's
authors warn.

``ImageSets/Segmentation`` gets these lists:

- ``sbd_train.txt``: SBD's training set, unchanged. These 8498 images are the training set of Croce, Singh, Hein (2024).
- ``sbd_train_noval.txt``: SBD's training set without the images of VOC's validation set.
- ``val_nosbd.txt``: VOC's validation set without the images of SBD's training set. On these images, models trained on
  the 8498 images can be scored without leakage.
- ``aug.txt``: both splits of SBD without the images that VOC labels. VOC's training set and this list together are the
  "10582" images.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from mmseg.datasets import PascalVOCDataset
from scipy.io import loadmat

from mmadv.datasets.prepare.files import (
    Count,
    Job,
    need_folder,
    prepare_label_maps,
    read_list,
    write_list,
)
from mmadv.errors import UserError

CLASSES = len(PascalVOCDataset.METAINFO['classes'])
PALETTE = PascalVOCDataset.METAINFO['palette']
SBD_PLACES = ('VOCaug/dataset', 'benchmark_RELEASE/dataset', '../benchmark_RELEASE/dataset', 'SBD', 'sbd')


def prepare_voc(root: Path, source: Path | None = None) -> list[str]:
    """Converts SBD's label maps, writes the lists, and returns lines that report the result.

    Args:
        root: the folder ``VOCdevkit``, with ``VOC2012``.
        source: the folder of SBD, with ``cls``, ``train.txt`` and ``val.txt``. By default, the function looks for it in
            ``VOCaug/dataset`` and ``benchmark_RELEASE/dataset`` of the root, and beside the root.

    Raises:
        UserError: a folder, list, image or label map is missing or broken.
    """
    voc = find_voc(root)
    sbd = find_sbd(root, source)
    lists = voc / 'ImageSets' / 'Segmentation'
    train, val = read_list(lists / 'train.txt'), read_list(lists / 'val.txt')
    sbd_train, sbd_val = read_list(sbd / 'train.txt'), read_list(sbd / 'val.txt')
    splits = [
        ('VOC train', train, 1464, 'SegmentationClass'),
        ('VOC val', val, 1449, 'SegmentationClass'),
        ('SBD train', sbd_train, 8498, 'SegmentationClassAug'),
        ('SBD val', sbd_val, 2857, 'SegmentationClassAug'),
    ]
    report = []
    for name, names, expected, folder in splits:
        jobs = [voc_job(voc, sbd if folder == 'SegmentationClassAug' else None, folder, image) for image in names]
        report.append(prepare_label_maps(jobs, Count(name, CLASSES, expected), PALETTE).describe())
    report += write_lists(lists, train, val, sbd_train, sbd_val)
    return report


def find_voc(root: Path) -> Path:
    """Returns the folder with VOC's JPEGImages: ``VOC2012`` in the root, or the root itself."""
    for place in (root / 'VOC2012', root / 'VOCdevkit' / 'VOC2012', root):
        if (place / 'JPEGImages').is_dir():
            return place
    raise UserError(f"'{root}' holds no VOC2012/JPEGImages; unpack VOCtrainval_11-May-2012.tar and name its VOCdevkit")


def find_sbd(root: Path, source: Path | None) -> Path:
    """Returns the folder with SBD's ``cls`` and lists."""
    if source is not None:
        need_folder(source / 'cls', "SBD's label maps")
        return source
    for place in SBD_PLACES:
        if (root / place / 'cls').is_dir():
            return root / place
    raise UserError(
        f"no SBD in '{root}' ({', '.join(SBD_PLACES)}); unpack benchmark.tgz there, or name its folder "
        "'dataset' as the source"
    )


def voc_job(voc: Path, sbd: Path | None, folder: str, name: str) -> Job:
    """Returns the job of one image: convert SBD's .mat, or check VOC's own label map."""
    image = voc / 'JPEGImages' / f'{name}.jpg'
    output = voc / folder / f'{name}.png'
    if sbd is None:
        return Job(image, output)
    original = sbd / 'cls' / f'{name}.mat'
    return Job(image, output, partial(read_sbd, original), original)


def read_sbd(path: Path) -> np.ndarray:
    """Returns the (H, W) uint8 classes of an SBD file, from the field ``Segmentation`` of its struct ``GTcls``.

    Raises:
        UserError: the file is unreadable or of another layout.
    """
    try:
        content = loadmat(path, variable_names=['GTcls'])
        labels = content['GTcls']['Segmentation'][0, 0]
    except Exception as error:  # scipy raises a dozen types on a broken file
        raise UserError(
            f"'{path}' is not a label map of SBD ({type(error).__name__}: {error}); fetch SBD again"
        ) from error
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise UserError(f"'{path}' holds no 8-bit label map but {labels.dtype} {labels.shape}; fetch SBD again")
    return np.ascontiguousarray(labels)


def write_lists(lists: Path, train: list[str], val: list[str], sbd_train: list[str], sbd_val: list[str]) -> list[str]:
    """Writes the lists in the module's docstring, and returns lines that report the lists and their overlap."""
    in_val, in_sbd_train, labelled = set(val), set(sbd_train), {*train, *val}
    noval = [name for name in sbd_train if name not in in_val]
    aug = sorted({*sbd_train, *sbd_val} - labelled)
    return [
        write_list(lists / 'sbd_train.txt', sbd_train),
        write_list(lists / 'sbd_train_noval.txt', noval),
        write_list(lists / 'val_nosbd.txt', [name for name in val if name not in in_sbd_train]),
        write_list(lists / 'aug.txt', aug),
        f'train.txt and aug.txt together: {len({*train, *aug})} images (10582 when complete)',
        f'{len(sbd_train) - len(noval)} of the {len(sbd_train)} images of sbd_train.txt are in the validation set '
        f'({len(val)} images): models trained on them are scored without leakage on val_nosbd.txt only',
    ]
