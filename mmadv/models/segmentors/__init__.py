"""Segmentors that train or predict in another way than mmseg's, and segmentors that wrap other libraries' networks."""

from mmadv.models.segmentors.class_excluding_encoder_decoder import ClassExcludingEncoderDecoder
from mmadv.models.segmentors.ddcat_encoder_decoder import DDCATEncoderDecoder
from mmadv.models.segmentors.hugging_face_segmentor import HuggingFaceSegmentor
from mmadv.models.segmentors.imported_segmentor import ImportedSegmentor
from mmadv.models.segmentors.torchvision_segmentor import TorchvisionSegmentor
from mmadv.models.segmentors.trades_encoder_decoder import TRADESEncoderDecoder

__all__ = [
    'ClassExcludingEncoderDecoder',
    'DDCATEncoderDecoder',
    'HuggingFaceSegmentor',
    'ImportedSegmentor',
    'TRADESEncoderDecoder',
    'TorchvisionSegmentor',
]
