"""Images of a group after a common corruption."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mmadv.corruptions import corrupt, corruption_seed
from mmadv.errors import UserError


class CorruptedImages:
    """Corrupts the images of a group as they enter the network; noise depends on the run's seed and the images' names.

    Args:
        group: a ``PredictedGroup``.
        context: a ``RunContext``.
        scale: 'published' or 'image', see ``mmadv.corruptions.corrupt``.
        frost_photographs: folder of the photographs of frost; None for those of the package ``imagecorruptions``.

    Raises:
        UserError: the images do not have three channels.
    """

    def __init__(
        self,
        group: Any,
        context: Any,
        scale: Literal['published', 'image'] = 'published',
        frost_photographs: str | None = None,
    ) -> None:
        images = group.images
        if images.shape[1] != 3:
            raise UserError(f'common corruptions need images with three channels; found {images.shape[1]}')
        self.like, self.names, self.seed = images, group.names, context.spec.seed
        self.scale, self.frost_photographs = scale, frost_photographs
        self.channels = slice(None, None, 1 if context.rgb else -1)
        pixels = (255 * images).round().clamp(0, 255).to('cpu', torch.uint8).permute(0, 2, 3, 1).numpy()
        self.pixels = np.ascontiguousarray(pixels[..., self.channels])

    def __call__(self, corruption: str, severity: int) -> Tensor:
        """Returns the images after a corruption, (n, 3, h, w) in [0, 1], on the device of the group's images."""
        corrupted = [
            corrupt(
                one,
                corruption,
                severity,
                seed=corruption_seed(self.seed, image, corruption, severity),
                scale=self.scale,
                frost_photographs=self.frost_photographs,
            )
            for one, image in zip(self.pixels, self.names, strict=True)
        ]
        pixels = np.ascontiguousarray(np.stack(corrupted)[..., self.channels])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self.like) / 255
