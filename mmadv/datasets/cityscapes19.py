"""Cityscapes with its 19 evaluated classes."""

from __future__ import annotations

from mmseg.datasets import CityscapesDataset
from mmseg.registry import DATASETS

from mmadv.datasets.checks import CheckedFiles
from mmadv.fields import checked


@DATASETS.register_module()
@checked
class Cityscapes19Dataset(CheckedFiles, CityscapesDataset):
    """mmseg's ``CityscapesDataset``; an error names the folder, image or label map that is missing.

    The label maps are the files ``_gtFine_labelTrainIds.png`` that ``mmadv prepare cityscapes`` writes.
    """
