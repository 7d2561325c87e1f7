"""Datasets and transforms that mmseg lacks."""

from mmadv.datasets.camvid import CamVidDataset
from mmadv.datasets.digit_scenes import DigitScenesDataset, LoadDigitScene
from mmadv.datasets.transforms import ScoreAtInputSize

__all__ = ['CamVidDataset', 'DigitScenesDataset', 'LoadDigitScene', 'ScoreAtInputSize']
