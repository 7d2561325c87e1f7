"""PASCAL VOC 2012 with 21 classes, including the background."""

from __future__ import annotations

from mmseg.datasets import BaseSegDataset, PascalVOCDataset
from mmseg.registry import DATASETS

from mmadv.datasets.checks import CheckedFiles
from mmadv.fields import checked


@DATASETS.register_module()
@checked
class VOC2012Dataset(CheckedFiles, BaseSegDataset):
    """VOC 2012 with lists of images; an error names the folder, list, image or label map that is missing.

    ``SegmentationClass`` holds VOC's own label maps, whose object borders are void (255). ``SegmentationClassAug``
    holds SBD's label maps, which have no void pixels. ``mmadv prepare voc`` writes them.
    """

    METAINFO = dict(
        classes=PascalVOCDataset.METAINFO['classes'],
        palette=PascalVOCDataset.METAINFO['palette'],
    )
