"""mmseg's ResNet in torchvision's form, with a stated input convention."""

from __future__ import annotations

from typing import Annotated, Literal

from mmseg.models.backbones import ResNet
from mmseg.registry import MODELS

from mmadv.checkpoints.conventions import convention
from mmadv.fields import Range, Stages, checked


@MODELS.register_module()
@checked
class PlainResNet(ResNet):
    """mmseg's ResNet with one 7x7 convolution as stem and the stride in the 3x3 convolutions.

    The network is torchvision's, with torchvision's parameter names (``conv1``, ``layer1.0.conv1``, ``layer1.0.bn1``,
    ...). torchvision's weights, and robust weights of that form, load key by key. mmseg's own configs use ResNetV1c,
    with three 3x3 convolutions in the stem. These weights do not fit ResNetV1c.

    Args:
        depth: 18, 34, 50, 101 or 152.
        output_stride: 8, 16 or 32; stages beyond it are dilated, as with torchvision's
            ``replace_stride_with_dilation``.
        out_indices: the stages whose features are returned.
        frozen_stages: the stem and this many stages are not trained; -1 trains everything.
        norm_cfg: config of mmcv's norm layers; None for trainable batch norms.
        norm_eval: whether batch norms keep their running statistics in training.
        with_cp: whether to recompute activations in the backward pass.
        zero_init_residual: whether blocks start as the identity, if there is no init_cfg.
        input_convention: the normalisation with which the weights were trained: 'unit', 'imagenet' or 'inception'.
            None states nothing.
        init_cfg: mmengine's initialisation config.

    Raises:
        UserError: a ResNet cannot have the output stride, or the convention is unknown.
    """

    # Output stride -> strides and dilations of the four stages.
    STRIDES = {
        32: ((1, 2, 2, 2), (1, 1, 1, 1)),
        16: ((1, 2, 2, 1), (1, 1, 1, 2)),
        8: ((1, 2, 1, 1), (1, 1, 2, 4)),
    }

    def __init__(
        self,
        *,
        depth: Literal[18, 34, 50, 101, 152] = 50,
        output_stride: Literal[8, 16, 32] = 8,
        out_indices: Stages = (0, 1, 2, 3),
        frozen_stages: Annotated[int, Range(-1, 4)] = -1,
        norm_cfg: dict | None = None,
        norm_eval: bool = False,
        with_cp: bool = False,
        zero_init_residual: bool = True,
        input_convention: str | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        strides, dilations = self.STRIDES[output_stride]
        super().__init__(
            depth=depth,
            strides=strides,
            dilations=dilations,
            out_indices=tuple(out_indices),
            style='pytorch',
            deep_stem=False,
            frozen_stages=frozen_stages,
            norm_cfg=norm_cfg or dict(type='BN', requires_grad=True),
            norm_eval=norm_eval,
            contract_dilation=True,
            with_cp=with_cp,
            zero_init_residual=zero_init_residual,
            init_cfg=init_cfg,
        )
        self.input_convention = None if input_convention is None else convention(input_convention).name

    def train(self, mode: bool = True) -> PlainResNet:
        """Returns the backbone itself, in training or eval mode; mmseg's ResNet returns None."""
        super().train(mode)
        return self
