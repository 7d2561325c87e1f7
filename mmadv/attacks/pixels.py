"""Adapts segmentation models of other libraries (torchvision, Hugging Face, timm-based) to the attacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch.nn.functional as F
from torch import Tensor, nn

from mmadv.attacks.checks import check_statistics
from mmadv.errors import UserError
from mmadv.fields import checked, checked_exactly
from mmadv.shapes import FLOATS, Shaped

# Smoothing adds noise, so values may leave [0, 1]. The first pass takes a value above HIGHEST for an image in [0, 255].
HIGHEST = 10
Pixels = Annotated[Tensor, Shaped('N C h w', FLOATS)]


@checked_exactly
class FromPixels(nn.Module):
    """Wraps a model of normalised images as a model from images in [0, 1] to logits at the size of the images.

    The wrapper normalises the images, calls the model, and takes the logits out of its output: a tensor, a mapping with
    'out' or 'logits', or an object with ``logits``. It resizes the logits bilinearly if their size differs from that of
    the images. All steps are differentiable, so the attack attacks the same prediction that is scored.

    Args:
        model: any module from (N, C, h, w) to logits.
        mean: the mean of the normalisation, one per channel, for images in [0, 1].
        std: the standard deviation of the normalisation, one per channel, for images in [0, 1]. Divide statistics of
            8-bit images by 255.
        align_corners: ``align_corners`` of the resizing of the logits, as in the training of the model.

    Raises:
        UserError: mean and std are not those of images in [0, 1], or the model does not return logits.

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
