"""Backbones that mmseg lacks, and their initialisation from public robust weights."""

from mmadv.models.backbones.architectures import ARCHITECTURES, build_backbone
from mmadv.models.backbones.conv_stem import ConvStem
from mmadv.models.backbones.input_convention import check_preprocessor
from mmadv.models.backbones.plain_resnet import PlainResNet
from mmadv.models.backbones.robust_pretrained import RobustPretrained
from mmadv.models.backbones.timm_convnext import TimmConvNeXt
from mmadv.models.backbones.timm_resnet_v2 import TimmResNetV2
from mmadv.models.backbones.timm_vision_transformer import TimmVisionTransformer

__all__ = [
    'ARCHITECTURES',
    'ConvStem',
    'PlainResNet',
    'RobustPretrained',
    'TimmConvNeXt',
    'TimmResNetV2',
    'TimmVisionTransformer',
    'build_backbone',
    'check_preprocessor',
]
