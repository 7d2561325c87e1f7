"""Digit scenes: handwritten digits on photographs, drawn at run time from scikit-learn's example data."""

from __future__ import annotations

import functools
from typing import Any, Literal

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS, TRANSFORMS
from sklearn.datasets import load_digits, load_sample_images

from mmadv.fields import NotNegative, Positive, checked

SPLITS = ('train', 'val')
SIDE = 64
DIGIT_HEIGHTS = (20, 24, 28, 32, 36)
CROP_SIDES = (64, 144)
DIGITS_PER_SCENE = (3, 5)
PLACEMENT_TRIES = 40
INK = 0.4  # a pixel with at least this share of ink belongs to its digit
VAL_DIGITS = 360
VAL_COLUMNS = 160
DIMMING = 0.5  # the factor on the photographs, so that every digit is brighter than the background behind it


@functools.cache
def digit_images(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the handwritten digits of a split: (n, 8, 8) float32 ink in [0, 1], and (n,) their values 0 to 9.

    The last 360 of scikit-learn's 1797 digits are for validation.
    """
    digits = load_digits()
    ink = (digits.images / 16).astype(np.float32)
    part = slice(-VAL_DIGITS, None) if split == 'val' else slice(None, -VAL_DIGITS)
    return ink[part], digits.target[part]


@functools.cache
def photo_regions(split: str) -> tuple[np.ndarray, ...]:
    """Returns the regions of scikit-learn's two photographs that a split may show, uint8 BGR.

    The rightmost 160 columns of each photograph are for validation. The other columns are for training.
    """
    columns = slice(-VAL_COLUMNS, None) if split == 'val' else slice(None, -VAL_COLUMNS)
    return tuple(np.ascontiguousarray(photo[:, columns, ::-1]) for photo in load_sample_images().images)


def draw_scene(split: str, index: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns one scene: a (64, 64, 3) uint8 BGR image and its (64, 64) uint8 label map.

    The scene has up to five digits on a dimmed crop of a photograph. The digits are 20 to 36 pixels high, do not
    overlap, and have bright colours. A pixel with at least 40 % ink has the class of its digit.

    Args:
        split: 'train' or 'val'; the two share neither digits nor parts of the photographs.
        index: the index of the scene.
        seed: another seed draws other scenes. Split, index and seed decide every pixel.
    """
    rng = np.random.default_rng((seed, SPLITS.index(split), index))
    scene = _draw_background(rng, split)
    labels = np.zeros((SIDE, SIDE), np.uint8)
    inks, values = digit_images(split)
    taken = np.zeros((SIDE, SIDE), bool)
    for _ in range(rng.integers(DIGITS_PER_SCENE[0], DIGITS_PER_SCENE[1] + 1)):
        which = rng.integers(len(inks))
        ink = _enlarged(inks[which], rng.choice(DIGIT_HEIGHTS))
        place = _free_place(rng, taken, ink.shape)
        if place is None:  # the scene has no free place, so it gets one digit fewer
            continue
        taken[place] = True
        scene[place] += ink[..., None] * (_bright_colour(rng) - scene[place])
        labels[place][ink >= INK] = values[which] + 1
    return np.rint(np.clip(scene, 0, 255)).astype(np.uint8), labels


def _draw_background(rng: np.random.Generator, split: str) -> np.ndarray:
    photos = photo_regions(split)
    photo = photos[rng.integers(len(photos))]
    side = rng.integers(CROP_SIDES[0], CROP_SIDES[1] + 1)
    top = rng.integers(0, photo.shape[0] - side + 1)
    left = rng.integers(0, photo.shape[1] - side + 1)
    crop = photo[top : top + side, left : left + side]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    return DIMMING * cv2.resize(np.ascontiguousarray(crop), (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(
        np.float32
    )


def _enlarged(ink: np.ndarray, height: int) -> np.ndarray:
    ink = ink[:, ink.any(axis=0)]  # without the empty columns beside narrow digits
    width = round(ink.shape[1] * height / len(ink))
    return np.clip(cv2.resize(ink, (width, int(height)), interpolation=cv2.INTER_CUBIC), 0, 1)


def _free_place(rng: np.random.Generator, taken: np.ndarray, size: tuple[int, ...]) -> tuple[slice, slice] | None:
    height, width = size
    room = (SIDE - height + 1, SIDE - width + 1)
    for top, left in rng.integers(0, room, size=(PLACEMENT_TRIES, 2)):
        place = (slice(top, top + height), slice(left, left + width))
        if not taken[place].any():
            return place
    return None


def _bright_colour(rng: np.random.Generator) -> np.ndarray:
    """Returns a bright colour: the largest channel is 255, far above any background, the smallest at least 76."""
    channels = rng.uniform(0.3, 1, size=3)
    return (255 * channels / channels.max()).astype(np.float32)


@TRANSFORMS.register_module()
@checked
class LoadDigitScene(BaseTransform):
    """Draws the scene that a ``DigitScenesDataset`` names: the image and its label map.

    Use it in a pipeline instead of ``LoadImageFromFile`` and ``LoadAnnotations``.
    """

    def transform(self, results: dict) -> dict:
        """Returns ``results`` with ``img``, ``gt_seg_map`` and their shapes, as mmseg's loaders set them."""
        image, labels = draw_scene(results['split'], results['index'], results['seed'])
        results['img'] = image
        results['img_shape'] = image.shape[:2]
        results['ori_shape'] = image.shape[:2]
        results['gt_seg_map'] = labels
        results['seg_fields'].append('gt_seg_map')
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'


@DATASETS.register_module()
@checked
class DigitScenesDataset(BaseSegDataset):
    """Coloured handwritten digits on photographs, 64x64 pixels, all drawn at run time without any file.

    Class 0 is the background, and class d + 1 is the digit d. The first transform of the pipeline is
    ``LoadDigitScene``. Instead of a path, a scene has the name ``digit_scenes/{split}/{index}``.

    Args:
        split: 'train' or 'val'.
        length: the number of scenes.
        seed: another seed draws other scenes. Split, index and seed decide every pixel.
        **kwargs: the arguments of ``BaseSegDataset``.

    Raises:
        UserError: the split is unknown, or the length is below 1.
    """

    METAINFO: dict[str, Any] = dict(
        classes=('background', *(f'digit {value}' for value in range(10))),
        palette=[
            [40, 40, 40],
            [230, 25, 75],
            [60, 180, 75],
            [255, 225, 25],
            [0, 130, 200],
            [245, 130, 48],
            [145, 30, 180],
            [70, 240, 240],
            [240, 50, 230],
            [210, 245, 60],
            [250, 190, 190],
        ],
    )

    def __init__(self, split: Literal['train', 'val'], length: Positive, seed: NotNegative = 0, **kwargs: Any) -> None:
        self.split = split
        self.length = length
        self.seed = seed
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """Returns one dict per scene: its name, and the arguments that draw it."""
        return [
            dict(
                img_path=f'digit_scenes/{self.split}/{index:05d}',
                split=self.split,
                index=index,
                seed=self.seed,
                label_map=self.label_map,
                reduce_zero_label=self.reduce_zero_label,
                seg_fields=[],
            )
            for index in range(self.length)
        ]
