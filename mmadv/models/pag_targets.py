"""Targets of the PAG loss for segmentors: banks of crops of classes, and teachers that a config describes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmadv.checkpoints.loading import load_weights
from mmadv.errors import UserError
from mmadv.models.adapter import TrainingAdapter
from mmadv.models.building import build_segmentor
from mmadv.models.pag_regions import SMALLEST_REGION, RegionDistillation, RegionExemplars, region_boxes
from mmadv.robustness import ClassBank, ClassMean, GradientTarget, NearestClusterMean, NearestNeighbour, OneImage


@dataclass(frozen=True)
class BankRequest:
    """The content that a bank should have.

    Attributes:
        classes: the classes with examples, among the ``num_classes`` classes; the other classes stay empty.
        num_classes: K, the number of classes.
        per_class: M, the number of examples of each class; a class has fewer examples if fewer images hold it.
        size: height and width of an example.
        ignore_index: label of void pixels.
    """

    classes: tuple[int, ...]
    num_classes: int
    per_class: int
    size: tuple[int, int]
    ignore_index: int = 255


def crop_around(image: np.ndarray, labels: np.ndarray, k: int, size: tuple[int, int]) -> np.ndarray:
    """Returns a window (h, w, C) of an image around the image's pixels of class ``k``.

    The centre of the window is the pixel of the class that is nearest to the class's centre of mass. The window moves
    inwards if it would cross the image's border. If the image is smaller than the window, the image is enlarged first.

    Args:
        image: (H, W, C) uint8.
        labels: (H, W) with at least one pixel of class ``k``.
        k: the class.
        size: height and width of the window.
    """
    factor = max(size[0] / image.shape[0], size[1] / image.shape[1], 1)
    if factor > 1:
        height, width = (max(round(image.shape[axis] * factor), size[axis]) for axis in (0, 1))
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        labels = cv2.resize(labels.astype(np.int32), (width, height), interpolation=cv2.INTER_NEAREST)
    where = np.argwhere(labels == k)
    centre = where[((where - where.mean(0)) ** 2).sum(1).argmin()]
    top, left = (
        int(np.clip(middle - side // 2, 0, whole - side))
        for middle, side, whole in zip(centre, size, image.shape[:2], strict=True)
    )
    return image[top : top + size[0], left : left + size[1]]


def collect_bank(pictures: Iterable[tuple[np.ndarray, np.ndarray]], request: BankRequest) -> ClassBank:
    """Returns a bank of crops from the first ``per_class`` images that hold each class.

    The function stops reading images when the bank is full.

    Args:
        pictures: images (H, W, C) uint8 with their labels (H, W), in the order in which the function tries them.
        request: the content that the bank should have.
    """
    crops: dict[int, list[np.ndarray]] = {k: [] for k in request.classes}
    for image, labels in pictures:
        for k, pixels in zip(*np.unique(labels, return_counts=True), strict=True):
            wanted = int(k) in crops and k != request.ignore_index and pixels >= SMALLEST_REGION
            if wanted and len(crops[int(k)]) < request.per_class:
                crops[int(k)].append(crop_around(image, labels, int(k), request.size))
        if all(len(class_crops) == request.per_class for class_crops in crops.values()):
            break
    return _as_bank(crops, request)


def collect_regions(pictures: Iterable[tuple[np.ndarray, np.ndarray]], request: BankRequest) -> ClassBank:
    """Returns a bank of regions of each class: the boxes of connected regions, resized, with their label maps.

    The last channel of an example is its label map. An image gives at most one region of each class. The function stops
    reading images when the bank is full.

    Args:
        pictures: images (H, W, C) uint8 with their labels (H, W), in the order in which the function tries them.
        request: the content that the bank should have.
    """
    crops: dict[int, list[np.ndarray]] = {k: [] for k in request.classes}
    for image, labels in pictures:
        for k, box in dict(region_boxes(labels, request.ignore_index)).items():
            if k in crops and len(crops[k]) < request.per_class:
                crops[k].append(_region(image[box], labels[box], request.size))
        if all(len(class_crops) == request.per_class for class_crops in crops.values()):
            break
    return _as_bank(crops, request)


def _region(image: np.ndarray, labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns a box of an image with its label map as the last channel, resized to ``size``."""
    width_height = (size[1], size[0])
    smaller = image.shape[0] > size[0] and image.shape[1] > size[1]
    resized = cv2.resize(image, width_height, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    label_map = cv2.resize(labels.astype(np.uint8), width_height, interpolation=cv2.INTER_NEAREST_EXACT)
    return np.concatenate([resized.reshape(*size, -1), label_map[..., None]], 2)


def _as_bank(crops: Mapping[int, Sequence[np.ndarray]], request: BankRequest) -> ClassBank:
    """Returns the bank of the crops (H, W, C) of each class."""
    channels = next((class_crops[0].shape[2] for class_crops in crops.values() if class_crops), 3)
    examples = np.zeros((request.num_classes, request.per_class, *request.size, channels), np.uint8)
    counts = torch.zeros(request.num_classes, dtype=torch.int64)
    for k, class_crops in crops.items():
        counts[k] = len(class_crops)
        for m, crop in enumerate(class_crops):
            examples[k, m] = crop
    return ClassBank(torch.from_numpy(examples.transpose(0, 1, 4, 2, 3).copy()), counts)


class Teacher(nn.Module):
    """A segmentor with its own normalisation: images in [0, 1] -> logits of the same height and width.

    Args:
        segmentor: an mmseg segmentor.
    """

    def __init__(self, segmentor: nn.Module) -> None:
        super().__init__()
        self.segmentor = segmentor

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (N, K, H, W)."""
        return TrainingAdapter(self.segmentor, (images.shape[2], images.shape[3]))(images)


def load_teacher(config: str, checkpoint: str, num_classes: int) -> Teacher:
    """Returns a teacher from a config file and a checkpoint, whose weights must all fit.

    Raises:
        UserError: the config cannot be read, the weights do not fit, or the number of classes differs.
    """
    try:
        settings = Config.fromfile(config)
    except (OSError, SyntaxError) as error:
        raise UserError(f'the teacher config {config} cannot be read ({error}); check the path') from error
    if settings.get('model') is None:
        raise UserError(f"the teacher config {config} has no 'model'; give the config that the teacher was trained by")
    segmentor = build_segmentor(settings)
    load_weights(segmentor, checkpoint)
    if segmentor.num_classes != num_classes:
        raise UserError(
            f'the teacher of {config} has {segmentor.num_classes} classes and the model {num_classes}; '
            'take a teacher of the same classes'
        )
    return Teacher(segmentor)


def build_bank_target(settings: Mapping[str, object], bank: ClassBank, without: Sequence[int]) -> GradientTarget:
    """Returns the target that a config describes, with a bank as its source of examples.

    Args:
        settings: ``type`` of a target that needs a bank, and the target's own arguments.
        bank: the bank of examples.
        without: the classes that the bank need not hold.
    """
    kinds: dict[str, Callable[..., GradientTarget]] = {
        'OneImage': OneImage,
        'ClassMean': ClassMean,
        'NearestNeighbour': NearestNeighbour,
        'NearestClusterMean': NearestClusterMean,
    }
    arguments = {key: value for key, value in settings.items() if key != 'type'}
    return kinds[str(settings['type'])](bank, without=without, **arguments)


def build_region_target(
    settings: Mapping[str, Any], bank: ClassBank, without: Sequence[int], ignore_index: int = 255
) -> RegionExemplars:
    """Returns the region target that a config describes.

    Args:
        settings: ``type`` 'RegionExemplars' or 'RegionDistillation', and the target's own arguments.
        bank: the bank of regions.
        without: the classes that are never painted.
        ignore_index: label of void pixels.
    """
    arguments: dict[str, Any] = dict(ignore_index=ignore_index, without=without)
    if 'regions' in settings:
        arguments['regions'] = settings['regions']
    if settings['type'] == 'RegionExemplars':
        return RegionExemplars(bank, **arguments)
    teacher = load_teacher(settings['config'], settings['checkpoint'], bank.num_classes)
    return RegionDistillation(teacher, bank, **arguments)
