"""PASCAL VOC 2012 with 21 classes, the background among them."""

from __future__ import annotations

from mmseg.datasets import BaseSegDataset, PascalVOCDataset
from mmseg.registry import DATASETS

from mmadv.datasets.checks import CheckedFiles
from mmadv.fields import checked


@DATASETS.register_module()
@checked
class VOC2012Dataset(CheckedFiles, BaseSegDataset):
    """VOC 2012 by lists, with a sentence for the folder, list, image or label map that is missing.

    ``SegmentationClass`` holds VOC's own label maps, whose object borders are void (255); ``SegmentationClassAug``
    those of SBD, without void, as ``mmadv prepare voc`` writes them.
    """

    METAINFO = dict(
        classes=PascalVOCDataset.METAINFO['classes'],
        palette=PascalVOCDataset.METAINFO['palette'],
    )
