"""Checks ADE20K's scene parsing benchmark, which needs no conversion."""

from __future__ import annotations

from pathlib import Path

from mmseg.datasets import ADE20KDataset

from mmadv.datasets.prepare.files import Count, Job, files_with_suffix, need_folder, prepare_label_maps

CLASSES = 151
PALETTE = [[0, 0, 0], *ADE20KDataset.METAINFO['palette']]
SPLITS = {'training': 20210, 'validation': 2000}


def prepare_ade20k(root: Path) -> list[str]:
    """Checks every pair of image and label map, and returns lines that report the result.

    The files hold 0 for pixels without a class and 1 to 150 for the classes. All 151 values are classes here, so the
    files are used unchanged.

    Args:
        root: the folder ``ADEChallengeData2016``, with ``images`` and ``annotations``.

    Raises:
        UserError: a folder or label map is missing or broken.
    """
    what = 'ADEChallengeData2016.zip'
    report = []
    for split, expected in SPLITS.items():
        images = files_with_suffix(root / 'images' / split, '.jpg', what)
        annotations = root / 'annotations' / split
        need_folder(annotations, what)
        jobs = [Job(image, annotations / f'{image.stem}.png') for image in images]
        count = prepare_label_maps(jobs, Count(split, CLASSES, expected), PALETTE)
        share = 100 * count.pixels[0] / max(count.pixels.sum(), 1)
        report.append(f'{count.describe()}; background is {share:.2f} % of the pixels')
    return report
