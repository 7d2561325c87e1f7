"""Pre-activation ResNets (ResNet v2) as backbones of mmseg, with timm's blocks."""

from __future__ import annotations

from typing import Any, Literal

from mmseg.registry import MODELS
from timm.layers import BatchNormAct2d, create_conv2d
from timm.models.resnetv2 import ResNetV2
from torch import Tensor

from mmadv.checkpoints.conventions import convention
from mmadv.fields import Positive, Share, Stages, checked
from mmadv.models.backbones.staged import StagedBackbone


@MODELS.register_module()
@checked
class TimmResNetV2(StagedBackbone):
    """timm's pre-activation ResNet with batch norm and a 7x7 stem, dilated to an output stride.

    Parameters have timm's names (``stem.conv``, ``stages.0.blocks.0.norm1``, ..., ``norm``). Every block begins with a
    norm and ReLU, so the output of a stage has not passed a norm and ReLU yet. Only the output of the last stage passes
    the final norm and ReLU. Source: He et al. (2016), Identity Mappings in Deep Residual Networks.

    Args:
        depths: blocks per stage, (3, 4, 6, 3) for ResNet-50.
        output_stride: 8, 16 or 32; stages beyond it are dilated.
        drop_path_rate: the last block's rate of stochastic depth; the rate rises linearly over the blocks.
        out_indices: the stages whose features are returned.
        input_convention: the normalisation with which the weights were trained: 'unit', 'imagenet' or 'inception'.
            None states nothing.
        init_cfg: mmengine's initialisation config.

    Raises:
        UserError: the convention is unknown.
    """

    def __init__(
        self,
        *,
        depths: tuple[Positive, Positive, Positive, Positive] = (3, 4, 6, 3),
        output_stride: Literal[8, 16, 32] = 8,
        drop_path_rate: Share = 0.0,
        out_indices: Stages = (0, 1, 2, 3),
        input_convention: str | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        resnet = ResNetV2(
            layers=list(depths),
            num_classes=0,
            output_stride=output_stride,
            conv_layer=create_conv2d,
            norm_layer=BatchNormAct2d,
            drop_path_rate=drop_path_rate,
        )
        self.input_convention = None if input_convention is None else convention(input_convention).name
        self.out_indices = tuple(out_indices)
        self.stem = resnet.stem
        self.stages: Any = resnet.stages
        self.norm = resnet.norm

    def normalised(self, index: int, features: Tensor) -> Tensor:
        return self.norm(features) if index == len(self.stages) - 1 else features
