"""Faults of processing: low contrast, elastic distortion, coarse pixels, and JPEG artefacts."""

from __future__ import annotations

from io import BytesIO

import cv2
import numpy as np
from PIL import Image
from scipy.fft import dct, idct
from scipy.ndimage import map_coordinates

from mmadv.corruptions.conditions import Conditions

# By severity: the factor of the differences from the mean.
CONTRAST = (0.4, 0.3, 0.2, 0.1, 0.05)
# By severity: (largest shift of a pixel before smoothing, standard deviation of the smoothing, largest shift of a
# corner of the affine map), in pixels. The published unit is 244 pixels; its authors say that they meant 224.
ELASTIC = tuple(
    tuple(244 * share for share in shares)
    for shares in ((2.0, 0.7, 0.1), (2.0, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))
)
# By severity: the share of the image's side that is left.
PIXELATE = (0.6, 0.5, 0.4, 0.3, 0.25)
# By severity: the quality of the JPEG file.
QUALITY = (25, 18, 15, 10, 7)


def contrast(image: np.ndarray, severity: int, conditions: Conditions) -> np.ndarray:
    """Returns the image with every value moved towards the mean of its channel."""
    mean = image.mean(axis=(0, 1), keepdims=True)
    return mean + CONTRAST[severity - 1] * (image - mean)


def elastic_transform(image: np.ndarray, severity: int, conditions: Conditions) -> np.ndarray:
    """Returns the image under a random affine map, then under a smooth random field of shifts."""
    length, sigma, corner = (conditions.unit * value for value in ELASTIC[severity - 1])
    generator, (height, width) = conditions.generator, image.shape[:2]
    x, y, side = width // 2, height // 2, min(height, width) // 3
    corners = np.array([(x + side, y + side), (x + side, y - side), (x - side, y - side)], np.float32)
    moved = corners + generator.uniform(-corner, corner, size=corners.shape).astype(np.float32)
    matrix = cv2.getAffineTransform(corners, moved)
    warped = cv2.warpAffine(image.astype(np.float32), matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    across, down = (length * smoothed(generator.uniform(-1, 1, (height, width)), sigma) for _ in range(2))
    rows, columns = np.mgrid[:height, :width]
    places = [rows + down.astype(np.float32), columns + across.astype(np.float32)]
    channels = [map_coordinates(warped[..., k], places, order=1, mode='reflect') for k in range(3)]
    return np.stack(channels, axis=2).astype(np.float64)


def smoothed(values: np.ndarray, sigma: float) -> np.ndarray:
    """Returns (h, w) values smoothed by a Gaussian of three standard deviations on each side, reflected at the borders.

    The reflected values are periodic, so the discrete cosine transform turns the smoothing into a product. Its time
    does not grow with ``sigma``, which may be as large as the image.
    """
    reach = int(3 * sigma + 0.5)
    weights = np.exp(-(np.arange(reach + 1) ** 2) / (2 * sigma**2))
    weights /= weights[0] + 2 * weights[1:].sum()
    for axis, side in enumerate(values.shape):
        # The transform's waves repeat after 2 * side steps, so the weights of equal phases are added up first.
        folded = np.bincount(np.arange(reach + 1) % (2 * side), weights, minlength=2 * side)
        response = 2 * np.fft.rfft(folded).real[:side] - weights[0]
        values = idct(dct(values, axis=axis) * (response[:, None] if axis == 0 else response), axis=axis)
    return values


def pixelate(image: np.ndarray, severity: int, conditions: Conditions) -> np.ndarray:
    """Returns the image made smaller by the mean of each box, and enlarged again."""
    share = min(1.0, PIXELATE[severity - 1] / conditions.unit)
    height, width = image.shape[:2]
    small = Image.fromarray(_bytes(image)).resize(
        (max(1, int(width * share)), max(1, int(height * share))), Image.Resampling.BOX
    )
    return np.asarray(small.resize((width, height), Image.Resampling.BOX)) / 255


def jpeg_compression(image: np.ndarray, severity: int, conditions: Conditions) -> np.ndarray:
    """Returns the image after it was a JPEG file of low quality."""
    file = BytesIO()
    Image.fromarray(_bytes(image)).save(file, 'JPEG', quality=QUALITY[severity - 1])
    return np.asarray(Image.open(file)) / 255


def _bytes(image: np.ndarray) -> np.ndarray:
    return np.round(255 * image).astype(np.uint8)
