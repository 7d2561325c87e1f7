"""COCO 2017 reduced to the 21 classes of PASCAL VOC."""

from __future__ import annotations

from mmseg.datasets import BaseSegDataset, PascalVOCDataset
from mmseg.registry import DATASETS

from mmadv.datasets.checks import CheckedFiles
from mmadv.fields import checked


@DATASETS.register_module()
@checked
class COCOVOC21Dataset(CheckedFiles, BaseSegDataset):
    """COCO 2017 with VOC's 20 object classes; everything else is background.

    ``mmadv prepare coco`` draws the label maps from COCO's instances and writes the lists.
    """

    METAINFO = dict(
        classes=PascalVOCDataset.METAINFO['classes'],
        palette=PascalVOCDataset.METAINFO['palette'],
    )
