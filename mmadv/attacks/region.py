"""Regions: the pixels of an image that an attack may change. All other pixels stay exactly as they are."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmadv.errors import UserError
from mmadv.fields import Share
from mmadv.printing import shown
from mmadv.registry import REGIONS, build

# Shares of an image are rounded when they are written.
ROUNDING = 1e-9


class Region(ABC):
    """Base of regions, which are frozen values; a threat model has at most one."""

    @abstractmethod
    def mask(self, images: Tensor) -> Tensor:
        """Returns the pixels of images (N, C, h, w) that may change, (N, 1, h, w) or (1, 1, h, w) bool.

        Raises:
            UserError: the region has no pixel of these images, or is meant for others.
        """


@REGIONS.register
@dataclass(frozen=True, kw_only=True)
class Box(Region):
    """A rectangle, the same in all images. Its sides are shares of the image's height and width.

    A pixel is in the box if its centre is.

    Args:
        top: the upper edge, from 0 at the top of the image to 1 at its bottom.
        left: the left edge, from 0 to 1.
        height: the height; more than 0.
        width: the width; more than 0.

    Raises:
        UserError: the box is empty, or reaches beyond the image.
    """

    top: Share
    left: Share
    height: Share
    width: Share

    def __post_init__(self) -> None:
        for start, side, names in ((self.top, self.height, 'top + height'), (self.left, self.width, 'left + width')):
            if side == 0:
                raise UserError(f'Box: {names.split()[2]} must be more than 0, so that an attack has a pixel to change')
            if start + side > 1 + ROUNDING:
                raise UserError(f'Box: {names} must be at most 1, the end of the image; found {start + side:g}')

    def mask(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        rows, columns = _span(height, self.top, self.height), _span(width, self.left, self.width)
        if rows.start == rows.stop or columns.start == columns.stop:
            raise UserError(f'{self} has no pixel of an image of {height}x{width}; make it larger')
        mask = torch.zeros((1, 1, height, width), dtype=torch.bool, device=images.device)
        mask[..., rows, columns] = True
        return mask


def _span(length: int, start: float, side: float) -> slice:
    """Returns the pixels whose centres lie in [start, start + side), as shares of the length."""
    first, end = (math.ceil((share - ROUNDING) * length - 0.5) for share in (start, start + side))
    return slice(max(first, 0), min(end, length))


@dataclass(frozen=True, eq=False)
class Pixels(Region):
    """Given pixels.

    Attributes:
        pixels: (N, 1, h, w) bool for N images, or (1, 1, h, w) for any number of images.
    """

    pixels: Tensor

    def mask(self, images: Tensor) -> Tensor:
        if self.pixels.shape[2:] != images.shape[2:] or len(self.pixels) not in (1, len(images)):
            raise UserError(f'a region of {tuple(self.pixels.shape)} is not one of images of {tuple(images.shape)}')
        return self.pixels.to(images.device)


def build_region(region: Any, owner: str) -> Region | None:
    """Returns a region from its config; a region or None is returned unchanged.

    Raises:
        UserError: the value is neither a region nor a config of one; the message names the ``owner``.
    """
    built = None if region is None else build(region, REGIONS)
    if not isinstance(built, Region | None):
        raise UserError(f'{owner}.region must be a region, its config, or None; found {shown(region)}')
    return built
