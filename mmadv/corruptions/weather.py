"""Weather: snow, frost on the lens, fog, and bright light."""

from __future__ import annotations

import math

import cv2
import numpy as np

from mmadv.corruptions.blur import in_motion
from mmadv.corruptions.conditions import Conditions, enlarged

# By severity: (mean and deviation of the noise, size of a flake, threshold, radius and deviation of the motion in
# pixels, share of the scene).
SNOW = (
    (0.1, 0.3, 3.0, 0.5, 10, 4, 0.8),
    (0.2, 0.3, 2.0, 0.5, 12, 4, 0.7),
    (0.55, 0.3, 4.0, 0.9, 12, 8, 0.7),
    (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
    (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
)
# By severity: (weight of the image, weight of the frost).
FROST = ((1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))
# By severity: (thickness, decay of the fog's details).
FOG = ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))
# By severity: what is added to the value of the HSV colour.
BRIGHTER = (0.1, 0.2, 0.3, 0.4, 0.5)


def snow(image: np.ndarray, severity: int, conditions: Conditions) -> np.ndarray:
    """Returns the image whitened, with two layers of falling flakes; the second layer is the first one turned round."""
    mean, deviation, size, threshold, radius, sigma, share = SNOW[severity - 1]
    generator, unit = conditions.generator, conditions.unit
    flakes = generator.normal(loc=mean, scale=deviation, size=image.shape[:2])
    flakes = enlarged(flakes[..., None], max(1.0, size * unit))[..., 0]
    flakes = np.floor(255 * np.where(flakes < threshold, 0, flakes).clip(0, 1)) / 255
    flakes = in_motion(flakes, radius * unit, sigma * unit, generator.uniform(-135, -45))[..., None]
    grey = cv2.cvtColor(image.astype(np.float32), cv2.COLOR_RGB2GRAY)[..., None]
    whitened = share * image + (1 - share) * np.maximum(image, 1.5 * grey + 0.5)
    return whitened + flakes + np.rot90(flakes, 2)


def frost(image: np.ndarray, severity: int, conditions: Conditions) -> np.ndarray:
    """Returns a weighted sum of the image and a random part of a random photograph of frost.

    A photograph that is smaller than the image is enlarged until it covers the image.
    """
    weight, weight_of_frost = FROST[severity - 1]
    generator, (height, width) = conditions.generator, image.shape[:2]
    photograph = conditions.photographs[generator.integers(len(conditions.photographs))]
    rows, columns = photograph.shape[:2]
    factor = max(conditions.unit, height / rows, width / columns)
    if factor != 1:
        size = (max(width, math.ceil(columns * factor)), max(height, math.ceil(rows * factor)))
        how = cv2.INTER_CUBIC if factor > 1 else cv2.INTER_AREA
        photograph = cv2.resize(photograph, size, interpolation=how)
    top, left = (
        generator.integers(max(1, larger - side))
        for larger, side in zip(photograph.shape[:2], (height, width), strict=True)
    )
    return weight * image + weight_of_frost * (photograph[top : top + height, left : left + width] / 255)


def fog(image: np.ndarray, severity: int, conditions: Conditions) -> np.ndarray:
    """Returns the image with fractal fog added, scaled so that the brightest value stays."""
    thickness, decay = FOG[severity - 1]
    height, width = image.shape[:2]
    layer = fractal(2 ** math.ceil(math.log2(max(height, width, 2))), decay, conditions.generator)
    brightest = image.max()
    return (image + thickness * layer[:height, :width, None]) * brightest / (brightest + thickness)


def fractal(side: int, decay: float, generator: np.random.Generator) -> np.ndarray:
    """Returns a cloud (side, side) in [0, 1] that the diamond-square algorithm draws on a torus.

    Args:
        side: a power of two.
        decay: what the amplitude of the random numbers is divided by, twice at each level.
        generator: source of the random numbers.
    """
    cloud = np.zeros((side, side))
    spacing, amplitude = side, 100.0
    while spacing >= 2:
        half = spacing // 2
        corners = cloud[::spacing, ::spacing]

        def midpoint(total: np.ndarray, amplitude: float = amplitude) -> np.ndarray:
            return total / 4 + amplitude * generator.uniform(-amplitude, amplitude, total.shape)

        right = corners + np.roll(corners, -1, 1)
        below = corners + np.roll(corners, -1, 0)
        centres = midpoint(right + np.roll(right, -1, 0))
        cloud[half::spacing, half::spacing] = centres
        cloud[::spacing, half::spacing] = midpoint(centres + np.roll(centres, 1, 0) + right)
        cloud[half::spacing, ::spacing] = midpoint(centres + np.roll(centres, 1, 1) + below)
        spacing, amplitude = half, amplitude / decay
    cloud -= cloud.min()
    return cloud / cloud.max()


def brightness(image: np.ndarray, severity: int, conditions: Conditions) -> np.ndarray:
    """Returns the image with a larger value in HSV; hue and saturation stay, except for what [0, 1] cuts off."""
    value = image.max(axis=2, keepdims=True)
    brighter = np.minimum(value + BRIGHTER[severity - 1], 1)
    return np.where(value > 0, image * (brighter / np.where(value > 0, value, 1)), brighter)
