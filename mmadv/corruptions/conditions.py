"""What a corruption needs besides the image and its severity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# The side of the images that the published lengths in pixels are meant for.
PUBLISHED_SIDE = 224


@dataclass(frozen=True)
class Conditions:
    """What a corruption needs besides the image and its severity.

    Attributes:
        generator: the source of all random numbers.
        unit: the factor of the published lengths in pixels; 1 takes them as they are.
        photographs: the photographs of frost, (h, w, 3) uint8 RGB each.
    """

    generator: np.random.Generator
    unit: float = 1.0
    photographs: tuple[np.ndarray, ...] = ()


# An image (H, W, 3) float64 RGB in [0, 1], a severity from 1 to 5, and the conditions -> the corrupted image. It may
# leave [0, 1] a little.
Corruption = Callable[[np.ndarray, int, Conditions], np.ndarray]


def stretched(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Returns an image (h, w, C) resized to ``shape`` by linear interpolation; the corner pixels stay in the corners.

    This is ``scipy.ndimage.zoom`` of order 1, which is many times slower.
    """
    for axis, length in enumerate(shape):
        place = np.arange(length) * ((image.shape[axis] - 1) / max(length - 1, 1))
        low = np.minimum(place.astype(np.int64), max(image.shape[axis] - 2, 0))
        share = (place - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1)).astype(image.dtype)
        high = np.minimum(low + 1, image.shape[axis] - 1)
        image = image.take(low, axis) * (1 - share) + image.take(high, axis) * share
    return image


def enlarged(image: np.ndarray, factor: float) -> np.ndarray:
    """Returns the middle of an image (h, w, C), enlarged by ``factor`` to the size of the image."""
    height, width = image.shape[:2]
    inner = [int(np.ceil(side / factor)) for side in (height, width)]
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    larger = [max(round(side * factor), whole) for side, whole in zip(inner, (height, width), strict=True)]
    result = stretched(image[top : top + inner[0], left : left + inner[1]], (larger[0], larger[1]))
    top, left = (larger[0] - height) // 2, (larger[1] - width) // 2
    return result[top : top + height, left : left + width]
