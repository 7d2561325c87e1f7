"""Preparation of downloaded datasets: one function per dataset checks, converts and counts it."""

from mmadv.datasets.prepare.acdc import prepare_acdc
from mmadv.datasets.prepare.ade20k import prepare_ade20k
from mmadv.datasets.prepare.camvid import prepare_camvid
from mmadv.datasets.prepare.cityscapes import prepare_cityscapes
from mmadv.datasets.prepare.cityscapes_c import prepare_cityscapes_c
from mmadv.datasets.prepare.coco import prepare_coco
from mmadv.datasets.prepare.voc import prepare_voc

__all__ = [
    'prepare_acdc',
    'prepare_ade20k',
    'prepare_camvid',
    'prepare_cityscapes',
    'prepare_cityscapes_c',
    'prepare_coco',
    'prepare_voc',
]
