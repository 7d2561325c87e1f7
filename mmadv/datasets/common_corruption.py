"""Common corruptions as a transform, for test pipelines and as an augmentation."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from mmadv.attacks import derive_seed
from mmadv.corruptions import (
    FROST,
    SEVERITIES,
    corrupt,
    corruption_seed,
    corruptions_of,
    severities_of,
)
from mmadv.corruptions import frost_photographs as read_photographs
from mmadv.errors import UserError
from mmadv.fields import Seed, Share, checked

LARGEST_SEED = 2**63 - 1


@TRANSFORMS.register_module()
@checked
class CommonCorruption(BaseTransform):
    """Corrupts the image, not the label map, by one of some common corruptions at one of some severities.

    In a test pipeline, give a ``seed``: then choice and noise depend only on the seed and the name of the image's file.
    As an augmentation, leave ``seed`` out: then NumPy's global generator chooses.

    The images must be 8-bit and have three channels. Put the transform after loading, or after resizing.

    Args:
        corruptions: names or groups of ``mmadv.corruptions``, such as 'fog' or 'noise'; empty for all 15.
        severities: severities from 1 to 5.
        prob: the probability that an image is corrupted.
        seed: seed of the choice and the noise; None for NumPy's global generator.
        scale: 'published' takes the published lengths in pixels, 'image' scales them with the image.
        channels: order of the channels; LoadImageFromFile gives 'bgr'.
        frost_photographs: folder of the photographs of frost; None for those of the package ``imagecorruptions``.

    Raises:
        UserError: an argument is invalid, or the photographs that frost needs are missing.
    """

    def __init__(
        self,
        corruptions: Sequence[str],
        severities: Sequence[int] = SEVERITIES,
        prob: Share = 1.0,
        seed: Seed | None = None,
        scale: Literal['published', 'image'] = 'published',
        channels: Literal['bgr', 'rgb'] = 'bgr',
        frost_photographs: str | None = None,
    ) -> None:
        self.corruptions = corruptions_of(corruptions, 'CommonCorruption.corruptions')
        self.severities = severities_of(severities, 'CommonCorruption.severities')
        self.prob = prob
        self.seed = seed
        self.scale = scale
        self.channels = channels
        self.frost_photographs = frost_photographs
        if FROST in self.corruptions:
            read_photographs(self.frost_photographs)

    def transform(self, results: dict) -> dict:
        """Returns ``results`` with ``img`` corrupted or not.

        Raises:
            UserError: the image is not 8-bit with three channels, or a seed is given and the image has no name.
        """
        image = results['img']
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise UserError(
                f'CommonCorruption needs images of type uint8 with three channels; found {image.dtype} of shape '
                f'{image.shape}; put it after loading'
            )
        generator, name = self._generator(results)
        if generator.random() >= self.prob:
            return results
        corruption = self.corruptions[generator.integers(len(self.corruptions))]
        severity = self.severities[generator.integers(len(self.severities))]
        if self.seed is None:
            seed = int(generator.integers(LARGEST_SEED))
        else:
            seed = corruption_seed(self.seed, name, corruption, severity)
        flip = slice(None, None, -1 if self.channels == 'bgr' else 1)
        corrupted = corrupt(
            np.ascontiguousarray(image[..., flip]),
            corruption,
            severity,
            seed=seed,
            scale=self.scale,
            frost_photographs=self.frost_photographs,
        )
        results['img'] = np.ascontiguousarray(corrupted[..., flip])
        return results

    def _generator(self, results: dict) -> tuple[np.random.Generator, str]:
        """Returns the generator of the choice for a sample, and the name of its image."""
        if self.seed is None:
            return np.random.default_rng(np.random.randint(2**31)), ''
        name = os.path.basename(results.get('img_path') or '') or results.get('sample_idx')
        if name is None:
            raise UserError('CommonCorruption.seed needs images with a file or a number; leave it out')
        return np.random.default_rng(derive_seed('corruption', self.seed, str(name))), str(name)

    def __repr__(self) -> str:
        names = ('corruptions', 'severities', 'prob', 'seed', 'scale', 'channels', 'frost_photographs')
        return f'{type(self).__name__}({", ".join(f"{name}={getattr(self, name)!r}" for name in names)})'
