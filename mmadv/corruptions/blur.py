"""Blur: out of focus, through frosted glass, of a moving camera, and of a camera that moves towards the scene."""

from __future__ import annotations

import math

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter

from mmadv.corruptions.conditions import Conditions, enlarged

# By severity: (radius of the disk, standard deviation that smooths its edge) in pixels.
DEFOCUS = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))
# By severity: (standard deviation in pixels, largest shift in pixels, rounds).
GLASS = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))
# By severity: (radius, standard deviation) in pixels.
MOTION = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))
# By severity: (number of zoom factors from 1 on, their distance). The published range of the first ends at 1.11, not at
# 1.10, because of rounding.
ZOOM = ((12, 0.01), (16, 0.01), (11, 0.02), (13, 0.02), (11, 0.03))


def defocus_blur(image: np.ndarray, severity: int, conditions: Conditions) -> np.ndarray:
    """Returns the image averaged over a disk around each pixel."""
    published_radius, smooth = DEFOCUS[severity - 1]
    radius = published_radius * conditions.unit
    reach = max(8, math.ceil(radius))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk = (x**2 + y**2 <= radius**2).astype(np.float32)
    side = 3 if radius <= 8 else 5
    kernel = cv2.GaussianBlur(disk / disk.sum(), (side, side), sigmaX=smooth)
    return cv2.filter2D(image, -1, kernel)


def glass_blur(image: np.ndarray, severity: int, conditions: Conditions) -> np.ndarray:
    """Returns the image blurred, with its pixels scattered over their neighbourhood, and blurred again."""
    sigma, reach, rounds = GLASS[severity - 1]
    sigma, reach = sigma * conditions.unit, max(1, round(reach * conditions.unit))
    blurred = np.uint8(255 * gaussian_filter(image, (sigma, sigma, 0), mode='nearest'))
    for _ in range(rounds):
        blurred = scattered(blurred, reach, conditions.generator)
    return gaussian_filter(blurred / 255, (sigma, sigma, 0), mode='nearest')


def scattered(image: np.ndarray, reach: int, generator: np.random.Generator) -> np.ndarray:
    """Returns an image (h, w, C) whose pixels are copies of random neighbours.

    Pixels are replaced one after the other, from the last one to the first one. If a pixel's neighbour was replaced
    before it, the pixel gets the new value of the neighbour, otherwise the old value. Pixels closer than ``reach`` to
    the border stay. This is what the published loop does, whose name for it is a swap.

    Args:
        image: the image.
        reach: the largest shift; shifts to the right and down are smaller by one.
        generator: source of the random numbers.
    """
    height, width = image.shape[:2]
    rows, columns = (np.arange(side - reach, reach, -1) for side in (height, width))
    if not (rows.size and columns.size):
        return image
    shifts = generator.integers(-reach, reach, size=(rows.size, columns.size, 2))
    place = rows[:, None] * width + columns
    source = (rows[:, None] + shifts[..., 1]) * width + columns + shifts[..., 0]
    # A pixel later in the image was replaced earlier, if it is one of those that are replaced. Such a neighbour is a
    # link of a chain; the chain ends at a pixel whose old value counts. Doubling finds all ends together.
    replaced = np.zeros(height * width, dtype=bool)
    replaced[place] = True
    ends = np.arange(height * width)
    link = ends.copy()
    earlier = replaced[source] & (source > place)
    link[place[earlier]] = source[earlier]
    ends[place] = np.where(earlier, place, source)
    while (link[link] != link).any():
        link = link[link]
    return image.reshape(height * width, -1)[ends[link]].reshape(image.shape)


def motion_blur(image: np.ndarray, severity: int, conditions: Conditions) -> np.ndarray:
    """Returns the image blurred along a line whose angle is at most 45 degrees from the horizontal."""
    radius, sigma = MOTION[severity - 1]
    angle = conditions.generator.uniform(-45, 45)
    return in_motion(image, radius * conditions.unit, sigma * conditions.unit, angle)


def in_motion(image: np.ndarray, radius: float, sigma: float, angle: float) -> np.ndarray:
    """Returns an image (h, w, C), or (h, w), blurred along a line on one side of each pixel, and cut off to 8 bits.

    The weights are those of half a Gaussian, as in ImageMagick's motion blur. Pixels beyond the border are those of the
    border.

    Args:
        image: float in [0, 1].
        radius: half the length of the line in pixels.
        sigma: standard deviation of the Gaussian in pixels.
        angle: direction of the line in degrees, clockwise from the right.
    """
    places = np.arange(2 * math.ceil(radius) + 1)
    weights = np.exp(-(places**2) / (2 * sigma**2))
    direction = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    columns, rows = (np.ceil(places * turn - 0.5).astype(int) for turn in direction)
    reach = places.size
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    np.add.at(kernel, (reach + rows, reach + columns), weights / weights.sum())
    blurred = cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REPLICATE)
    # A constant area stays constant, although its weighted sum may be a little too small.
    return np.floor(255 * blurred.clip(0, 1) + 1e-6) / 255


def zoom_blur(image: np.ndarray, severity: int, conditions: Conditions) -> np.ndarray:
    """Returns the mean of the image and of its enlarged versions; the image itself counts twice, as published."""
    number, distance = ZOOM[severity - 1]
    total = image = image.astype(np.float32)
    for n in range(number):
        total = total + enlarged(image, 1 + n * distance)
    return total / (number + 1)
