"""ESPNet's decoder as a decode head of mmseg."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmadv.fields import NotNegative, checked

from .layers import NORM_EPS, ESPBlock, conv, norm_act, upsample


@MODELS.register_module()
@checked
class ESPNetHead(BaseDecodeHead):
    """Decodes the features of ``ESPNetEncoder`` in three doublings, to logits of the input's size.

    The published network has one output channel more than CamVid has classes, for pixels without a label. mmseg ignores
    these pixels, so the head leaves the channel out.

    Args:
        unlabelled_channels: number of output channels after those of the classes; predictions and losses ignore them.
        kwargs: arguments of ``BaseDecodeHead``.
    """

    def __init__(self, *, unlabelled_channels: NotNegative = 1, **kwargs) -> None:
        super().__init__(
            in_channels=[19, 131, 256],
            channels=kwargs['num_classes'] + unlabelled_channels,
            in_index=[0, 1, 2],
            input_transform='multiple_select',
            dropout_ratio=0,
            init_cfg=None,
            **kwargs,
        )
        del self.conv_seg  # the last transposed convolution classifies
        first, second, third = self.in_channels
        width = self.channels
        self.classifier3 = conv(third, width, 1)
        self.norm3 = nn.BatchNorm2d(width, eps=NORM_EPS)
        self.up3 = upsample(width)
        self.classifier2 = conv(second, width, 1)
        self.norm2 = norm_act(2 * width)
        self.mix2 = ESPBlock(2 * width, width, residual=False)
        self.up2 = upsample(width)
        self.up_norm2 = norm_act(width)
        self.mix1 = conv(first + width, width, 3)
        self.norm1 = norm_act(width)
        self.up1 = upsample(width)

    def all_logits(self, inputs: Sequence[Tensor]) -> Tensor:
        """Returns (N, num_classes + unlabelled_channels, H, W) for the features of images (N, 3, H, W)."""
        first, second, third = self._transform_inputs(inputs)
        x = self.up3(self.norm3(self.classifier3(third)))
        x = self.mix2(self.norm2(torch.cat([self.classifier2(second), x], dim=1)))
        x = self.up_norm2(self.up2(x))
        x = self.norm1(self.mix1(torch.cat([x, first], dim=1)))
        return self.up1(x)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Returns the classes' logits, (N, num_classes, H, W)."""
        return self.all_logits(inputs)[:, : self.num_classes]
