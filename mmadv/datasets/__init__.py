"""Datasets and transforms that mmseg lacks."""

from mmadv.datasets.ade20k_151 import ADE20K151Dataset
from mmadv.datasets.camvid import CamVidDataset
from mmadv.datasets.cityscapes19 import Cityscapes19Dataset
from mmadv.datasets.coco_voc21 import COCOVOC21Dataset
from mmadv.datasets.common_corruption import CommonCorruption
from mmadv.datasets.digit_scenes import DigitScenesDataset, LoadDigitScene
from mmadv.datasets.random_gaussian_blur import RandomGaussianBlur
from mmadv.datasets.transforms import ResizeShortSide, ScoreAtInputSize, VoidToClass
from mmadv.datasets.voc2012 import VOC2012Dataset

__all__ = [
    'ADE20K151Dataset',
    'COCOVOC21Dataset',
    'CamVidDataset',
    'Cityscapes19Dataset',
    'CommonCorruption',
    'DigitScenesDataset',
    'LoadDigitScene',
    'RandomGaussianBlur',
    'ResizeShortSide',
    'ScoreAtInputSize',
    'VOC2012Dataset',
    'VoidToClass',
]
