"""ESPNet's encoder as a backbone of mmseg."""

from __future__ import annotations

from collections import OrderedDict

import torch
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmadv.errors import UserError
from mmadv.fields import NotNegative, checked

from .layers import ESPBlock, conv, norm_act


@MODELS.register_module()
@checked
class ESPNetEncoder(BaseModule):
    """Returns features at a half, a quarter and an eighth of the input's size, with 19, 131 and 256 channels.

    Args:
        depths: number of ESP blocks at a quarter and at an eighth of the size (alpha2 and alpha3 of the paper).
        init_cfg: of mmengine.

    Raises:
        UserError: at a forward pass, if height or width is not a multiple of 8.
    """

    def __init__(self, depths: tuple[NotNegative, NotNegative] = (2, 8), init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.stem = nn.Sequential(OrderedDict(conv=conv(3, 16, 3, stride=2), **dict(norm_act(16).named_children())))
        self.pool = nn.AvgPool2d(3, stride=2, padding=1)
        self.norm1 = norm_act(16 + 3)
        self.down2 = ESPBlock(16 + 3, 64, stride=2, residual=False)
        self.stage2 = nn.Sequential(*(ESPBlock(64, 64) for _ in range(depths[0])))
        self.norm2 = norm_act(2 * 64 + 3)
        self.down3 = ESPBlock(2 * 64 + 3, 128, stride=2, residual=False)
        self.stage3 = nn.Sequential(*(ESPBlock(128, 128) for _ in range(depths[1])))
        self.norm3 = norm_act(2 * 128)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the three features of images (N, 3, H, W)."""
        if x.shape[2] % 8 or x.shape[3] % 8:
            raise UserError(
                f'ESPNet takes sizes that are multiples of 8; found {x.shape[2]}x{x.shape[3]} (height x width); set '
                'size_divisor=8 in the data preprocessor, and in its test_cfg'
            )
        half = self.pool(x)
        quarter = self.pool(half)
        first = self.norm1(torch.cat([self.stem(x), half], dim=1))
        down = self.down2(first)
        second = self.norm2(torch.cat([self.stage2(down), down, quarter], dim=1))
        down = self.down3(second)
        third = self.norm3(torch.cat([down, self.stage3(down)], dim=1))
        return first, second, third
