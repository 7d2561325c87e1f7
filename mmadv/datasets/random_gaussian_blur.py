"""Gaussian blur of random strength, an augmentation that mmseg lacks."""

from __future__ import annotations

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmseg.registry import TRANSFORMS

from mmadv.errors import UserError
from mmadv.fields import NotNegativeNumber, Share, checked


@TRANSFORMS.register_module()
@checked
class RandomGaussianBlur(BaseTransform):
    """Blurs the image, not the label map, with a Gaussian of random standard deviation.

    Args:
        prob: the probability that an image is blurred.
        sigma: the lowest and highest standard deviation in pixels. The value is drawn uniformly between them.

    Raises:
        UserError: the probability is outside [0, 1], or sigma is negative or descending.
    """

    def __init__(self, prob: Share = 0.5, sigma: tuple[NotNegativeNumber, NotNegativeNumber] = (0.0, 1.0)) -> None:
        if sigma[0] > sigma[1]:
            raise UserError(f'RandomGaussianBlur: sigma must be the lowest, then the highest value; found {sigma}')
        self.prob = prob
        self.sigma = tuple(sigma)

    @cache_randomness
    def draw_sigma(self) -> float:
        """Returns this image's standard deviation in pixels; 0 leaves the image unchanged."""
        blurred = np.random.rand() < self.prob
        low, high = self.sigma
        sigma = np.random.uniform(low, high)
        return sigma if blurred else 0.0

    def transform(self, results: dict) -> dict:
        """Returns ``results`` with ``img`` blurred or not."""
        sigma = self.draw_sigma()
        if sigma > 0:
            # The kernel reaches at least three standard deviations to each side, and has at least three pixels.
            side = 2 * max(1, int(np.ceil(3 * sigma))) + 1
            results['img'] = cv2.GaussianBlur(results['img'], (side, side), sigma)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(prob={self.prob}, sigma={self.sigma})'
