"""Similarity of painted pixels to the original: PSNR, SSIM and the mean absolute error inside a mask."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mmadv.attacks.checks import Images, Mask
from mmadv.errors import UserError
from mmadv.fields import checked
from mmadv.synthesis.painting import check_mask

WINDOW, DEVIATION, K1, K2 = 11, 1.5, 0.01, 0.03


@checked
def psnr(images: Images, reference: Images, mask: Mask) -> Tensor:
    """Returns the peak signal-to-noise ratio inside the mask in dB, (N,), infinite for equal images.

    Args:
        images: (N, C, h, w) in [0, 1].
        reference: (N, C, h, w) in [0, 1].
        mask: (N, 1, h, w) bool.

    Raises:
        UserError: images are not in [0, 1], or the mask does not fit.
    """
    return -10 * torch.log10(_mean_inside((images - reference).square(), mask))


@checked
def mean_absolute_error(images: Images, reference: Images, mask: Mask) -> Tensor:
    """Returns the mean absolute error inside the mask, (N,); arguments and errors as in ``psnr``."""
    return _mean_inside((images - reference).abs(), mask)


@checked
def ssim(images: Images, reference: Images, mask: Mask) -> Tensor:
    """Returns the structural similarity inside the mask, (N,), 1 for equal images; arguments as in ``psnr``.

    It follows Wang et al. (2004): Gaussian windows of 11x11 with deviation 1.5, K₁ = 0.01, K₂ = 0.03, channel by
    channel. Each window around a masked pixel counts. The image is mirrored at its border.
    """
    if min(images.shape[2:]) <= WINDOW // 2:
        raise UserError(
            f'ssim: images must be larger than {WINDOW // 2} pixels each way; found {tuple(images.shape[2:])}'
        )
    offsets = torch.arange(WINDOW, dtype=images.dtype, device=images.device) - WINDOW // 2
    line = torch.exp(-(offsets**2) / (2 * DEVIATION**2))
    kernel = torch.outer(line, line) / line.sum() ** 2
    channels = images.shape[1]

    def smooth(values: Tensor) -> Tensor:
        padded = F.pad(values, (WINDOW // 2,) * 4, mode='reflect')
        return F.conv2d(padded, kernel.expand(channels, 1, WINDOW, WINDOW), groups=channels)

    mean, other = smooth(images), smooth(reference)
    variance, other_variance = smooth(images**2) - mean**2, smooth(reference**2) - other**2
    covariance = smooth(images * reference) - mean * other
    luminance = (2 * mean * other + K1**2) / (mean**2 + other**2 + K1**2)
    structure = (2 * covariance + K2**2) / (variance + other_variance + K2**2)
    return _mean_inside(luminance * structure, mask)


def _mean_inside(values: Tensor, mask: Tensor) -> Tensor:
    check_mask(mask)
    weights = mask.expand_as(values)
    return (values * weights).flatten(1).sum(1) / weights.flatten(1).sum(1)
