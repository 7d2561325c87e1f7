"""The 15 common corruptions of ImageNet-C (Hendrycks and Dietterich, ICLR 2019) for images of any size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Annotated, Any, Literal

import numpy as np

from mmadv.attacks.randomness import derive_seed
from mmadv.corruptions import blur, digital, noise, weather
from mmadv.corruptions.conditions import PUBLISHED_SIDE, Conditions, Corruption
from mmadv.corruptions.photographs import frost_photographs as read_photographs
from mmadv.errors import UserError, nearest
from mmadv.fields import Range, Seed, checked
from mmadv.printing import shown
from mmadv.shapes import Shaped

# Group -> its corruptions, in the order of the paper's tables.
GROUPS: dict[str, tuple[Corruption, ...]] = {
    'noise': (noise.gaussian_noise, noise.shot_noise, noise.impulse_noise),
    'blur': (blur.defocus_blur, blur.glass_blur, blur.motion_blur, blur.zoom_blur),
    'weather': (weather.snow, weather.frost, weather.fog, weather.brightness),
    'digital': (digital.contrast, digital.elastic_transform, digital.pixelate, digital.jpeg_compression),
}
CORRUPTIONS: dict[str, Corruption] = {one.__name__: one for group in GROUPS.values() for one in group}
SEVERITIES = (1, 2, 3, 4, 5)
# 'published' takes lengths in pixels as they are; 'image' scales them with the image.
SCALES = ('published', 'image')
# Smaller images have no room for a blur.
SMALLEST_SIDE = 8
# The corruption that needs photographs.
FROST = weather.frost.__name__

Severity = Annotated[int, Range(1, 5)]
Pixels = Annotated[np.ndarray, Shaped('h w 3', ('uint8',))]


@checked
def corrupt(
    image: Pixels,
    corruption: str,
    severity: Severity,
    *,
    seed: Seed,
    scale: Literal['published', 'image'] = 'published',
    frost_photographs: str | None = None,
) -> np.ndarray:
    """Returns a corrupted image, (h, w, 3) uint8 RGB; the same arguments always give the same image.

    Values are cut off, not rounded, when they become bytes, as in the published code. docs/corruptions.md says how each
    corruption compares with that code.

    Args:
        image: (h, w, 3) uint8, RGB.
        corruption: one of ``CORRUPTIONS``.
        severity: 1 to 5.
        seed: seed of the random numbers.
        scale: 'published' takes the published lengths in pixels, which are meant for images of 224x224; 'image' scales
            them with the short side of the image.
        frost_photographs: folder of the photographs of frost; None for those of the package ``imagecorruptions``.

    Raises:
        UserError: an argument is invalid, or the photographs of frost are missing.
    """
    if corruption not in CORRUPTIONS:
        raise UserError(f'corrupt.corruption {_unknown(corruption, CORRUPTIONS)}')
    if min(image.shape[:2]) < SMALLEST_SIDE:
        raise UserError(f'corrupt.image must be at least {SMALLEST_SIDE} pixels wide and high; found {image.shape[:2]}')
    photographs = read_photographs(frost_photographs) if corruption == FROST else ()
    unit = 1.0 if scale == 'published' else min(image.shape[:2]) / PUBLISHED_SIDE
    conditions = Conditions(np.random.default_rng(seed), unit, photographs)
    result = CORRUPTIONS[corruption](image / 255, severity, conditions)
    return np.uint8(255 * result.clip(0, 1))


@checked
def corruption_seed(seed: Seed, image: str, corruption: str, severity: Severity) -> int:
    """Returns the seed for one corruption of one image, which depends on nothing else.

    Args:
        seed: seed of the run.
        image: name of the image; only the last part of a path counts.
        corruption: name of the corruption.
        severity: 1 to 5.
    """
    return derive_seed('corruption', seed, PurePath(image).name, corruption, severity)


@checked
def corruptions_of(names: Sequence[str], what: str = 'corruptions') -> tuple[str, ...]:
    """Returns the corruptions that some names ask for, in the order of the paper; all of them for no name.

    Args:
        names: corruptions, groups, or 'all'.
        what: name of the argument in messages.

    Raises:
        UserError: a name is unknown or given twice.
    """
    known: dict[str, tuple[str, ...]] = {'all': tuple(CORRUPTIONS)}
    known |= {group: tuple(one.__name__ for one in ones) for group, ones in GROUPS.items()}
    known |= {name: (name,) for name in CORRUPTIONS}
    chosen: list[str] = []
    for name in names or ('all',):
        if name not in known:
            raise UserError(f'{what} {_unknown(name, known)}')
        chosen += known[name]
    twice = next((name for name in chosen if chosen.count(name) > 1), None)
    if twice is not None:
        raise UserError(f'{what} has {twice} twice; name each corruption once')
    return tuple(name for name in CORRUPTIONS if name in chosen)


@checked
def severities_of(values: Sequence[int], what: str = 'severities') -> tuple[int, ...]:
    """Returns the severities in order; raises UserError if there is none, or one is not from 1 to 5 or given twice."""
    if not values or any(value not in SEVERITIES for value in values) or len(set(values)) < len(values):
        raise UserError(f'{what} must be different numbers from 1 to 5; found {shown(list(values))}')
    return tuple(sorted(values))


def _unknown(name: Any, known: Mapping[str, Any]) -> str:
    return f'must be the name of a corruption; found {shown(name)}{nearest(str(name), known)}'
