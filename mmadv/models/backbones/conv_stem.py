"""The convolutional stem of the robust ConvNeXt and ViT models."""

from __future__ import annotations

from collections.abc import Sequence

from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn.init import trunc_normal_

from mmadv.errors import UserError


class ConvStem(nn.Module):
    """3x3 convolutions, each followed by LayerNorm over the channels and GELU, in place of a patch embedding.

    The parameters are named as in the public robust weights: ``stem.0`` is the first convolution, ``stem.1`` its
    norm, ``stem.3`` the second convolution. Source: Singh et al. (2023), arXiv:2303.01870.

    Args:
        widths: channels after each convolution.
        stride: the stride of the whole stem, a power of two: the first convolutions halve the size, the rest keep it.
        projection: channels of a last 1x1 convolution without norm; None adds no such convolution.

    Raises:
        UserError: the stride is not a power of two, or there are too few convolutions for it.
    """

    def __init__(self, widths: Sequence[int], *, stride: int, projection: int | None = None) -> None:
        super().__init__()
        halvings = stride.bit_length() - 1
        if 1 << halvings != stride or len(widths) < halvings:
            raise UserError(
                f'stem_widths {tuple(widths)} cannot make a stride of {stride}; each convolution halves the size at '
                'most'
            )
        layers: list[nn.Module] = []
        channels = 3
        for index, width in enumerate(widths):
            layers += [
                nn.Conv2d(channels, width, kernel_size=3, stride=2 if index < halvings else 1, padding=1),
                LayerNorm2d(width),
                nn.GELU(),
            ]
            channels = width
        if projection is not None:
            layers.append(nn.Conv2d(channels, projection, kernel_size=1))
        self.stem = nn.Sequential(*layers)
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                trunc_normal_(layer.weight, std=0.02)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Returns features (N, C, H / stride, W / stride) for images (N, 3, H, W)."""
        return self.stem(images)
