"""The mean over the pixels that count."""

from __future__ import annotations

from torch import Tensor


def valid_mean(pixels: Tensor, valid: Tensor) -> Tensor:
    """Returns the mean of (N, H, W) over the True pixels of ``valid``; 0, with zero gradient, where there is none."""
    return pixels.where(valid, 0).sum() / valid.sum().clamp_min(1)
