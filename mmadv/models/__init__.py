"""Adapters from mmseg's segmentors to attacks, data preprocessors for training, losses, segmentors and backbones."""

from mmadv.models.adapter import SegmentorAdapter, TrainingAdapter, geometry, unwrap
from mmadv.models.adv_data_preprocessor import AdvSegDataPreProcessor
from mmadv.models.backbones import TimmConvNeXt
from mmadv.models.batches import sample_names, stack_images, stack_labels
from mmadv.models.free_adv_data_preprocessor import FreeAdvSegDataPreProcessor
from mmadv.models.losses import JensenShannonLoss, KLDivergenceLoss
from mmadv.models.pag_segmentor import PAGCascadeEncoderDecoder, PAGEncoderDecoder
from mmadv.models.segmentors import (
    ClassExcludingEncoderDecoder,
    DDCATEncoderDecoder,
    HuggingFaceSegmentor,
    TorchvisionSegmentor,
    TRADESEncoderDecoder,
)

__all__ = [
    'AdvSegDataPreProcessor',
    'ClassExcludingEncoderDecoder',
    'DDCATEncoderDecoder',
    'FreeAdvSegDataPreProcessor',
    'HuggingFaceSegmentor',
    'JensenShannonLoss',
    'KLDivergenceLoss',
    'PAGCascadeEncoderDecoder',
    'PAGEncoderDecoder',
    'SegmentorAdapter',
    'TRADESEncoderDecoder',
    'TimmConvNeXt',
    'TorchvisionSegmentor',
    'TrainingAdapter',
    'geometry',
    'sample_names',
    'stack_images',
    'stack_labels',
    'unwrap',
]
