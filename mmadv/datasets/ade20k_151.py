"""ADE20K with 151 classes: what has no label is a class, so that nothing is ignored."""

from __future__ import annotations

from mmseg.datasets import ADE20KDataset, BaseSegDataset
from mmseg.registry import DATASETS

from mmadv.datasets.checks import CheckedFiles
from mmadv.fields import checked


@DATASETS.register_module()
@checked
class ADE20K151Dataset(CheckedFiles, BaseSegDataset):
    """ADE20K's scene parsing benchmark with the files' own values as classes: 0 is background, 1 to 150 its classes.

    mmseg's ``ADE20KDataset`` ignores value 0 and counts from the wall; here no pixel is ignored.

    Source: Zhou et al., "Semantic understanding of scenes through the ADE20K dataset", 2019; with 151 classes as in
    Croce, Singh, Hein, "Towards reliable evaluation and fast training of robust semantic segmentation models", 2024.
    """

    METAINFO = dict(
        classes=('background', *ADE20KDataset.METAINFO['classes']),
        palette=[[0, 0, 0], *ADE20KDataset.METAINFO['palette']],
    )
