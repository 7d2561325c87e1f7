"""CamVid: 701 labelled frames of drives through Cambridge, 11 classes and void."""

from __future__ import annotations

import os.path as osp

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from mmadv.errors import UserError


@DATASETS.register_module()
class CamVidDataset(BaseSegDataset):
    """CamVid with the 11 classes and the split of SegNet (367 training, 101 validation frames).

    The folder holds ``images/{train,val}/NAME.jpg`` and ``annotations/{train,val}/NAME.png``. A label map has one
    channel with the class index, and 255 where the pixel is void.

    Source: Brostow, Fauqueur, Cipolla, "Semantic object classes in video", 2009; the grouping into 11 classes and the
    palette are those of Badrinarayanan, Kendall, Cipolla, "SegNet", 2017.

    Raises:
        UserError: a folder is missing or holds no image, or an image has no label map.
    """

    METAINFO = dict(
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

    def __init__(self, img_suffix: str = '.jpg', seg_map_suffix: str = '.png', **kwargs) -> None:
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Returns one dict per frame, sorted by path, after a check that the files are there."""
        for key in ('img_path', 'seg_map_path'):
            folder = self.data_prefix[key]
            if not osp.isdir(folder):
                raise UserError(
                    f"the CamVid folder '{folder}' does not exist; put the data there or set data_root in the config"
                )
        data_list = super().load_data_list()
        if not data_list:
            raise UserError(
                f"the CamVid folder '{self.data_prefix['img_path']}' holds no {self.img_suffix} image; put the data "
                'there or set data_root in the config'
            )
        for item in data_list:
            if not osp.isfile(item['seg_map_path']):
                raise UserError(
                    f"the image '{item['img_path']}' has no label map; expected it at '{item['seg_map_path']}'"
                )
        return data_list
