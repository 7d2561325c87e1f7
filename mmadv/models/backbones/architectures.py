"""The published networks by name: the architectures that a checkpoint may have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.model import BaseModule
from mmseg.registry import MODELS

from mmadv.errors import UserError, nearest

CONVNEXT_WIDTHS = (96, 192, 384, 768)
VIT_STEM = (48, 96, 192, 384)

# The names are those of checkpoint files. Configs set the arguments that do not change the shape of a parameter.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    'convnext_t': dict(type='TimmConvNeXt', depths=(3, 3, 9, 3), dims=CONVNEXT_WIDTHS),
    'convnext_s': dict(type='TimmConvNeXt', depths=(3, 3, 27, 3), dims=CONVNEXT_WIDTHS),
    'convnext_b': dict(type='TimmConvNeXt', depths=(3, 3, 27, 3), dims=(128, 256, 512, 1024)),
    'convnext_t_convstem': dict(type='TimmConvNeXt', depths=(3, 3, 9, 3), dims=CONVNEXT_WIDTHS, stem_widths=(48, 96)),
    'convnext_s_convstem': dict(type='TimmConvNeXt', depths=(3, 3, 27, 3), dims=CONVNEXT_WIDTHS, stem_widths=(48, 96)),
    'convnext_b_convstem': dict(
        type='TimmConvNeXt', depths=(3, 3, 27, 3), dims=(128, 256, 512, 1024), stem_widths=(64, 96, 128)
    ),
    'vit_s': dict(type='TimmVisionTransformer', embed_dim=384, num_heads=6),
    'vit_b': dict(type='TimmVisionTransformer', embed_dim=768, num_heads=12),
    'vit_s_convstem': dict(type='TimmVisionTransformer', embed_dim=384, num_heads=6, stem_widths=VIT_STEM),
    'vit_b_convstem': dict(type='TimmVisionTransformer', embed_dim=768, num_heads=12, stem_widths=VIT_STEM),
    'resnet18': dict(type='PlainResNet', depth=18),
    'resnet50': dict(type='PlainResNet', depth=50),
    'resnet101': dict(type='PlainResNet', depth=101),
    # The stem has 64, 64 and 128 channels; mmseg's own weights of a ResNetV1c have 32, 32 and 64.
    'resnet50_v1c': dict(type='ResNetV1c', depth=50, stem_channels=128, norm_cfg=dict(type='BN')),
    'resnetv2_50': dict(type='TimmResNetV2', depths=(3, 4, 6, 3)),
}

# Whole segmentors by name: backbone and heads. The checkpoint file defines the number of classes.
SEGMENTORS: dict[str, dict[str, Any]] = {
    **{
        f'upernet_{name}': dict(
            backbone=ARCHITECTURES[name],
            decode_head=dict(
                type='UPerHead',
                in_channels=CONVNEXT_WIDTHS,
                in_index=(0, 1, 2, 3),
                channels=512,
                norm_cfg=dict(type='BN'),
            ),
            auxiliary_head=dict(
                type='FCNHead', in_channels=384, in_index=2, channels=256, num_convs=1, concat_input=False,
                norm_cfg=dict(type='BN'),
            ),
        )
        for name in ('convnext_t_convstem', 'convnext_s_convstem')
    },
    'pspnet_resnet50_v1c': dict(
        backbone=ARCHITECTURES['resnet50_v1c'],
        decode_head=dict(
            type='PSPHead', in_channels=2048, in_index=3, channels=512, pool_scales=(1, 2, 3, 6),
            norm_cfg=dict(type='BN'),
        ),
        auxiliary_head=dict(
            type='FCNHead', in_channels=1024, in_index=2, channels=256, num_convs=1, concat_input=False,
            norm_cfg=dict(type='BN'),
        ),
    ),
    'deeplabv3_resnet50_v1c': dict(
        backbone=ARCHITECTURES['resnet50_v1c'],
        decode_head=dict(
            type='ASPPHead', in_channels=2048, in_index=3, channels=256, dilations=(1, 6, 12, 18),
            norm_cfg=dict(type='BN'),
        ),
        auxiliary_head=dict(
            type='FCNHead', in_channels=1024, in_index=2, channels=256, num_convs=1, kernel_size=1, concat_input=False,
            norm_cfg=dict(type='BN'),
        ),
    ),
    'segmenter_vit_s': dict(
        backbone=ARCHITECTURES['vit_s'],
        decode_head=dict(
            type='SegmenterMaskTransformerHead', in_channels=384, channels=384, num_layers=2, num_heads=6,
            embed_dims=384,
        ),
    ),
}  # fmt: skip
# Keys of a segmentor's state dict that show its number of classes -> the axis that counts them.
CLASSES_AXIS = {'decode_head.conv_seg.weight': 0, 'decode_head.cls_emb': 1}


def build_backbone(name: str, **changes: Any) -> BaseModule:
    """Returns the backbone with the given name, with random weights.

    Args:
        name: a key of ARCHITECTURES.
        changes: arguments of the backbone's class.

    Raises:
        UserError: there is no such architecture.
    """
    if name not in ARCHITECTURES:
        raise UserError(f"unknown architecture '{name}'{nearest(name, ARCHITECTURES)}")
    return MODELS.build({**ARCHITECTURES[name], **changes})


def build_parts(name: str, num_classes: int, **changes: Any) -> dict[str, BaseModule]:
    """Returns the parts of a named segmentor, its backbone and heads, from which to read the sizes of the weights.

    Args:
        name: a key of SEGMENTORS.
        num_classes: the number of classes of the heads.
        changes: arguments of the backbone's class.
    """
    parts = {}
    for part, config in SEGMENTORS[name].items():
        loss = dict(type='CrossEntropyLoss', avg_non_ignore=True)
        arguments = config | (changes if part == 'backbone' else dict(num_classes=num_classes, loss_decode=loss))
        # mmseg's Segmenter head cannot be built on the device 'meta'.
        with torch.device('cpu' if config['type'] == 'SegmenterMaskTransformerHead' else 'meta'):
            parts[part] = MODELS.build(arguments)
    return parts


def shapes_of(backbone: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Returns the sizes of the tensors in a module's state dict."""
    return {key: tuple(value.shape) for key, value in backbone.state_dict().items()}


def fresh_parameters(backbone: torch.nn.Module) -> Mapping[str, str]:
    """Returns the prefixes of weights that a backbone adds to the published network, each with the reason."""
    return getattr(backbone, 'fresh_parameters', {})
