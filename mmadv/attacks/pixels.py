"""Segmentation models from elsewhere (torchvision, Hugging Face, timm-based) as what attacks take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch.nn.functional as F
from torch import Tensor, nn

from mmadv.attacks.checks import check_statistics
from mmadv.errors import UserError
from mmadv.fields import checked, checked_exactly
from mmadv.shapes import FLOATS, Shaped

# Smoothing adds noise beyond [0, 1]; images in [0, 255] are told from it by more than this, in the first pass alone.
HIGHEST = 10
Pixels = Annotated[Tensor, Shaped('N C h w', FLOATS)]


@checked_exactly
class FromPixels(nn.Module):
    """A model that takes normalised images, as one from images in [0, 1] to logits at the size of the images.

    It normalises, calls the model, takes the logits out of what comes back (a tensor, a mapping with 'out' or 'logits',
    or an object with ``logits``) and resizes them bilinearly where they are smaller. Everything is differentiable, and
    the prediction that is scored is the one that is attacked.

    Args:
        model: any module from (N, C, h, w) to logits.
        mean: of the normalisation, one per channel, for images in [0, 1].
        std: likewise. Statistics of 8-bit images have to be divided by 255.
        align_corners: of the resizing of the logits; as the model was trained.

    Raises:
        UserError: mean and std are not those of images in [0, 1], or the output is no logits.

    >>> import torch
    >>> model = FromPixels(nn.Conv2d(3, 2, 2, stride=2), mean=[0.5] * 3, std=[0.25] * 3)
    >>> model(torch.rand(1, 3, 8, 6)).shape
    torch.Size([1, 2, 8, 6])
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        check_statistics(mean, std, 'FromPixels')
        self.model = model
        self.mean = tuple(float(value) for value in mean)
        self.std = tuple(float(value) for value in std)
        self.align_corners = align_corners
        self._is_new = True

    @checked
    def forward(self, images: Pixels) -> Tensor:
        """Returns logits (N, K, h, w) for images (N, C, h, w) in [0, 1]."""
        if self._is_new and images.numel():
            highest = float(images.detach().amax())
            if highest > HIGHEST:
                raise UserError(f'FromPixels.images must be in [0, 1], noise aside; found values up to {highest:g}')
            self._is_new = False
        if images.shape[1] != len(self.mean):
            raise UserError(f'FromPixels: images have {images.shape[1]} channels, mean has {len(self.mean)} values')
        mean, std = (images.new_tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        logits = _logits(self.model((images - mean) / std))
        if logits.shape[2:] != images.shape[2:]:
            logits = F.interpolate(logits, images.shape[2:], mode='bilinear', align_corners=self.align_corners)
        return logits


def _logits(output: Any) -> Tensor:
    if isinstance(output, Mapping):
        output = output.get('out', output.get('logits'))
    output = getattr(output, 'logits', output)
    if not isinstance(output, Tensor) or output.ndim != 4:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UserError(f'FromPixels: the model must return logits (N, K, h, w); found {shape}')
    return output
