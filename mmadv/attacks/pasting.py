"""A texture pasted into an image: where, how large and how bright, differentiably."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmadv.attacks.region import Box


class Placement(NamedTuple):
    """A rectangle of whole pixels inside an image, and the factor of the texture's brightness."""

    top: int
    left: int
    height: int
    width: int
    brightness: float

    def box(self, size: Sequence[int]) -> Box:
        """Returns the rectangle in shares of an image of ``size`` (h, w)."""
        height, width = size
        return Box(top=self.top / height, left=self.left / width, height=self.height / height, width=self.width / width)


def masks(images: Tensor, placements: Sequence[Placement]) -> Tensor:
    """Returns the pixels of the rectangles, (N, 1, h, w) bool, of images (N, C, h, w)."""
    return torch.cat([placement.box(images.shape[2:]).mask(images) for placement in placements])


def paste(images: Tensor, textures: Tensor, placements: Sequence[Placement]) -> Tensor:
    """Returns images with a texture over each rectangle, (N, C, h, w); all other pixels stay as they are.

    A texture is resized to its rectangle by a triangle filter (bilinear interpolation; averages where it shrinks),
    multiplied by the brightness, and clipped to [0, 1].

    Args:
        images: (N, C, h, w) in [0, 1].
        textures: (N, C, a, b) in [0, 1], or (1, C, a, b) for all images.
        placements: one for each image, inside it.
    """
    pasted = []
    for image, texture, one in zip(images, textures.expand(len(images), -1, -1, -1), placements, strict=True):
        rows, columns = _resampling(texture.shape[1], one.height), _resampling(texture.shape[2], one.width)
        resized = rows.to(texture) @ texture @ columns.to(texture).T
        patch = (one.brightness * resized).clamp(0, 1)
        right, below = image.shape[2] - one.left - one.width, image.shape[1] - one.top - one.height
        canvas = F.pad(patch, (one.left, right, one.top, below))
        pasted.append(torch.where(one.box(image.shape[1:]).mask(image[None])[0], canvas, image))
    return torch.stack(pasted)


def texture_gradient(
    images: Tensor, textures: Tensor, placements: Sequence[Placement], image_gradient: Tensor
) -> Tensor:
    """Returns the gradient with respect to the textures, from the gradient with respect to the pasted images.

    The arguments are those of ``paste``, and ``image_gradient`` (N, C, h, w).
    """
    with torch.enable_grad():
        leaf = textures.detach().requires_grad_()
        pasted = paste(images, leaf, placements)
    return torch.autograd.grad(pasted, leaf, image_gradient)[0]


@lru_cache(maxsize=1024)
def _resampling(length: int, resized: int) -> Tensor:
    """Returns the weights of ``length`` values in each of ``resized`` values, (resized, length) float64.

    Products with these matrices have a deterministic gradient on every device.
    """
    if resized == length:
        return torch.eye(length, dtype=torch.float64)
    identity = torch.eye(length, dtype=torch.float64)[None, None]
    return F.interpolate(identity, size=(resized, length), mode='bilinear', antialias=True)[0, 0]
