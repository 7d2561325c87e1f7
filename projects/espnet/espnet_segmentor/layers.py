"""The blocks of ESPNet (Mehta et al., "ESPNet: Efficient Spatial Pyramid of Dilated Convolutions", ECCV 2018)."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

DILATIONS = (1, 2, 4, 8, 16)
NORM_EPS = 1e-3


def norm_act(channels: int) -> nn.Sequential:
    """Returns a batch norm and a PReLU with one slope for each channel."""
    norm = nn.BatchNorm2d(channels, eps=NORM_EPS)
    return nn.Sequential(OrderedDict(norm=norm, act=nn.PReLU(channels)))


def conv(in_channels: int, out_channels: int, size: int, *, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """Returns a convolution without bias that keeps the size at stride 1."""
    padding = dilation * (size // 2)
    return nn.Conv2d(in_channels, out_channels, size, stride, padding, dilation, bias=False)


def upsample(channels: int) -> nn.ConvTranspose2d:
    """Returns the 2x2 transposed convolution that doubles the size."""
    return nn.ConvTranspose2d(channels, channels, 2, stride=2, bias=False)


class ESPBlock(nn.Module):
    """Efficient spatial pyramid: reduce, convolve with five dilations, fuse by running sums, concatenate.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output. Each branch has a fifth, rounded down; the first also has the rest.
        stride: 2 halves the size in the reduction, which is then 3x3 instead of 1x1.
        residual: whether the input is added.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, residual: bool = True) -> None:
        super().__init__()
        branch = out_channels // len(DILATIONS)
        widths = [out_channels - (len(DILATIONS) - 1) * branch] + [branch] * (len(DILATIONS) - 1)
        self.reduce = conv(in_channels, branch, 3 if stride > 1 else 1, stride=stride)
        self.branches = nn.ModuleList(
            conv(branch, width, 3, dilation=dilation) for width, dilation in zip(widths, DILATIONS, strict=True)
        )
        self.norm_act = norm_act(out_channels)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """Returns (N, out_channels, H, W); height and width are halved at stride 2."""
        reduced = self.reduce(x)
        plain, *dilated = (branch(reduced) for branch in self.branches)
        sums = [dilated[0]]
        for output in dilated[1:]:
            sums.append(sums[-1] + output)
        pyramid = torch.cat([plain, *sums], dim=1)
        return self.norm_act(x + pyramid if self.residual else pyramid)
