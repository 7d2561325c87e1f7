"""Seeds of class-conditional synthesis: a Gaussian fitted to the images of a class."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from mmadv.attacks.checks import Image, Images, finite
from mmadv.attacks.randomness import derive_seed
from mmadv.errors import UserError
from mmadv.fields import checked, checked_exactly
from mmadv.shapes import FLOATS, Seeds, Shaped


@checked_exactly
@dataclass(frozen=True)
class ClassGaussian:
    """The Gaussian with the mean and the full sample covariance of some images, (C, h, w) each.

    The covariance matrix is never formed. Let X be the centred images and z standard normal; then Xᵀz / √(M - 1) has
    this covariance.

    Attributes:
        mean: (C, h, w).
        centred: (M, C, h, w), the images minus their mean.
    """

    mean: Image
    centred: Annotated[Tensor, Shaped('M C h w', FLOATS, finite)]

    @classmethod
    @checked
    def fit(cls, images: Images) -> ClassGaussian:
        """Returns the Gaussian of images (M, C, h, w) in [0, 1], at least two.

        Raises:
            UserError: there are fewer than two images, or values are outside [0, 1].
        """
        if len(images) < 2:
            raise UserError(f'a Gaussian needs at least two images of the class; found {len(images)}')
        images = images.detach()
        mean = images.mean(0)
        return cls(mean, images - mean)

    @checked
    def sample(self, seeds: Seeds) -> Tensor:
        """Returns one image per seed, (N, C, h, w), clipped to [0, 1].

        Raises:
            UserError: there are no seeds.
        """
        if not seeds:
            raise UserError('ClassGaussian.sample: seeds must hold at least one')
        images = len(self.centred)
        weights = torch.stack(
            [
                torch.randn(images, generator=torch.Generator().manual_seed(derive_seed('class gaussian', seed)))
                for seed in seeds
            ]
        ).to(self.mean)
        return (self.mean + torch.einsum('nm,mchw->nchw', weights, self.centred) / math.sqrt(images - 1)).clamp(0, 1)
