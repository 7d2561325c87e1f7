"""The adapter from mmseg's segmentors to attacks, the data preprocessor of adversarial training, and backbones."""

from mmadv.models.adapter import SegmentorAdapter, TrainingAdapter, geometry, unwrap
from mmadv.models.adv_data_preprocessor import AdvSegDataPreProcessor
from mmadv.models.backbones import TimmConvNeXt
from mmadv.models.batches import sample_names, stack_images, stack_labels
from mmadv.models.pag_segmentor import PAGCascadeEncoderDecoder, PAGEncoderDecoder

__all__ = [
    'AdvSegDataPreProcessor',
    'PAGCascadeEncoderDecoder',
    'PAGEncoderDecoder',
    'SegmentorAdapter',
    'TimmConvNeXt',
    'TrainingAdapter',
    'geometry',
    'sample_names',
    'stack_images',
    'stack_labels',
    'unwrap',
]
