"""Noise of the sensor: Gaussian, shot and impulse noise. All values are drawn by themselves."""

from __future__ import annotations

import numpy as np

from mmadv.corruptions.conditions import Conditions

# By severity: the standard deviation, the photons of a white value, and the share of changed values.
DEVIATIONS = (0.08, 0.12, 0.18, 0.26, 0.38)
PHOTONS = (60, 25, 12, 5, 3)
CHANGED = (0.03, 0.06, 0.09, 0.17, 0.27)


def gaussian_noise(image: np.ndarray, severity: int, conditions: Conditions) -> np.ndarray:
    """Returns the image with normal noise added."""
    return image + conditions.generator.normal(scale=DEVIATIONS[severity - 1], size=image.shape)


def shot_noise(image: np.ndarray, severity: int, conditions: Conditions) -> np.ndarray:
    """Returns the image as a count of photons, which has a Poisson distribution."""
    photons = PHOTONS[severity - 1]
    return conditions.generator.poisson(image * photons) / photons


def impulse_noise(image: np.ndarray, severity: int, conditions: Conditions) -> np.ndarray:
    """Returns the image with a share of its values replaced by 0 or 1, which are equally likely."""
    changed = conditions.generator.random(image.shape) <= CHANGED[severity - 1]
    white = conditions.generator.random(image.shape) <= 0.5
    return np.where(changed, white.astype(image.dtype), image)
