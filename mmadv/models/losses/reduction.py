"""The mean over valid pixels."""

from __future__ import annotations

from torch import Tensor


def valid_mean(pixels: Tensor, valid: Tensor) -> Tensor:
    """Returns the mean of (N, H, W) over the True pixels of ``valid``; 0 with zero gradient if no pixel is True."""
    return pixels.where(valid, 0).sum() / valid.sum().clamp_min(1)
