"""Seeds of class-conditional synthesis: a Gaussian fitted to the images of a class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmadv.attacks.checks import check_images
from mmadv.attacks.randomness import derive_seed
from mmadv.errors import UserError


@dataclass(frozen=True)
class ClassGaussian:
    """The Gaussian with the mean and the whole sample covariance of some images, (C, h, w) each.

    The covariance matrix is never formed: with centred images X, Xᵀz / √(M - 1) of a standard normal z has it.

    Attributes:
        mean: (C, h, w).
        centred: (M, C, h, w), the images without their mean.
    """

    mean: Tensor
    centred: Tensor

    @classmethod
    def fit(cls, images: Tensor) -> ClassGaussian:
        """Returns the Gaussian of images (M, C, h, w) in [0, 1], at least two.

        Raises:
            UserError: fewer than two images, or values outside [0, 1].
        """
        check_images(images)
        if len(images) < 2:
            raise UserError(f'a Gaussian needs at least two images of the class; found {len(images)}')
        mean = images.mean(0)
        return cls(mean, images - mean)

    def sample(self, seeds: Sequence[int]) -> Tensor:
        """Returns one image per seed, (N, C, h, w), clipped to [0, 1]."""
        images = len(self.centred)
        weights = torch.stack(
            [
                torch.randn(images, generator=torch.Generator().manual_seed(derive_seed('class gaussian', seed)))
                for seed in seeds
            ]
        ).to(self.mean)
        return (self.mean + torch.einsum('nm,mchw->nchw', weights, self.centred) / math.sqrt(images - 1)).clamp(0, 1)
