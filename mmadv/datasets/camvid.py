"""CamVid: 701 labelled frames of drives through Cambridge, 11 classes and void."""

from __future__ import annotations

from typing import Any

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from mmadv.datasets.checks import CheckedFiles
from mmadv.fields import checked


@DATASETS.register_module()
@checked
class CamVidDataset(CheckedFiles, BaseSegDataset):
    """CamVid with the 11 classes and the split of SegNet (367 training, 101 validation frames).

    The folder holds ``images/{train,val}/NAME.jpg`` and ``annotations/{train,val}/NAME.png``. A label map has one
    channel with the class index of each pixel. Void pixels are 255.

    Source: Brostow, Fauqueur, Cipolla, "Semantic object classes in video", 2009. The grouping into 11 classes and the
    palette come from Badrinarayanan, Kendall, Cipolla, "SegNet", 2017.

    Raises:
        UserError: a folder is missing or holds no image, or an image has no label map.
    """

    METAINFO: dict[str, Any] = dict(
        classes=(
            'sky',
            'building',
            'pole',
            'road',
            'pavement',
            'tree',
            'signsymbol',
            'fence',
            'car',
            'pedestrian',
            'bicyclist',
        ),
        palette=[
            [128, 128, 128],
            [128, 0, 0],
            [192, 192, 128],
            [128, 64, 128],
            [60, 40, 222],
            [128, 128, 0],
            [192, 128, 128],
            [64, 64, 128],
            [64, 0, 128],
            [64, 64, 0],
            [0, 128, 192],
        ],
    )

    def __init__(self, img_suffix: str = '.jpg', seg_map_suffix: str = '.png', **kwargs: Any) -> None:
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)
