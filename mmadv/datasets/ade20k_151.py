"""ADE20K with 151 classes: pixels without a label are a class, so no pixel is ignored."""

from __future__ import annotations

from mmseg.datasets import ADE20KDataset, BaseSegDataset
from mmseg.registry import DATASETS

from mmadv.datasets.checks import CheckedFiles
from mmadv.fields import checked


@DATASETS.register_module()
@checked
class ADE20K151Dataset(CheckedFiles, BaseSegDataset):
    """ADE20K's scene parsing benchmark, with the values in the files as classes.

    Class 0 is the background. Classes 1 to 150 are the benchmark's classes. This dataset ignores no pixel.
    mmseg's ``ADE20KDataset`` ignores value 0, and its class 0 is the wall.

    Source: Zhou et al., "Semantic understanding of scenes through the ADE20K dataset", 2019. The 151 classes are as in
    Croce, Singh, Hein, "Towards reliable evaluation and fast training of robust semantic segmentation models", 2024.
    """

    METAINFO = dict(
        classes=('background', *ADE20KDataset.METAINFO['classes']),
        palette=[[0, 0, 0], *ADE20KDataset.METAINFO['palette']],
    )
