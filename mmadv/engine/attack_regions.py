"""Regions of an attack: a box, the pixels of one class, all pixels but those of a class, or the place of a patch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmadv.attacks import Box, Region, derive_seed
from mmadv.attacks.patch import PatchAttack
from mmadv.errors import UserError, nearest

# Meta data of a sample: its region, (H, W) bool at the size of the labels.
KEY = 'region'
FORMS = 'box:TOP,LEFT,HEIGHT,WIDTH, class:NAME or except:NAME'


class AttackRegion(ABC):
    """The pixels that an attack may change.

    Attributes:
        fixed: the region, if it is the same in all images; None if it depends on the labels.
    """

    fixed: Region | None = None

    @abstractmethod
    def of_image(self, labels: Tensor, name: str, size: Sequence[int]) -> Tensor:
        """Returns the region (H, W) bool of one image.

        Args:
            labels: (H, W).
            name: name of the image.
            size: height and width of the network's input.
        """


@dataclass(frozen=True)
class BoxRegion(AttackRegion):
    """The same box in all images."""

    fixed: Box

    def of_image(self, labels: Tensor, name: str, size: Sequence[int]) -> Tensor:
        return self.fixed.mask(labels[None, None])[0, 0]


@dataclass(frozen=True)
class ClassRegion(AttackRegion):
    """The pixels of a class, or all others, void ones included."""

    index: int
    others: bool

    def of_image(self, labels: Tensor, name: str, size: Sequence[int]) -> Tensor:
        return (labels == self.index) != self.others


@dataclass(frozen=True)
class PatchRegion(AttackRegion):
    """The place at which a patch is evaluated, which the run's seed and the image's name decide."""

    attack: PatchAttack
    seed: int

    def of_image(self, labels: Tensor, name: str, size: Sequence[int]) -> Tensor:
        (placement,) = self.attack.placements(size, [derive_seed(self.seed, name)])
        return placement.box(size).mask(labels[None, None])[0, 0]


def parse_box(text: str) -> Box | None:
    """Returns the box of a region's text; None for the region of a class.

    Raises:
        UserError: the text is no region, or its box is invalid.
    """
    kind, _, value = text.partition(':')
    if kind in ('class', 'except') and value:
        return None
    try:
        top, left, height, width = map(float, value.split(','))
    except ValueError:
        kind = ''
    if kind != 'box':
        raise UserError(f"test_cfg.region must be {FORMS}, the box in shares of the image; found '{text}'")
    try:
        return Box(top=top, left=left, height=height, width=width)
    except UserError as error:
        raise UserError(f"test_cfg.region '{text}': {error}") from None


def parse_attack_region(text: str, classes: Sequence[str]) -> AttackRegion:
    """Returns the region that a text names: ``box:TOP,LEFT,HEIGHT,WIDTH``, ``class:NAME`` or ``except:NAME``.

    Raises:
        UserError: the text has another form, or the dataset does not have the class.
    """
    box = parse_box(text)
    if box is not None:
        return BoxRegion(box)
    kind, _, value = text.partition(':')
    if value not in classes:
        raise UserError(f"test_cfg.region: the dataset has no class '{value}'{nearest(value, classes)}")
    return ClassRegion(list(classes).index(value), others=kind == 'except')


def note_regions(
    inputs: Sequence[Tensor], samples: Sequence[Any], region: AttackRegion, score: str, ignore_index: int
) -> None:
    """Writes the region of each sample into its meta data; if only the rest is scored, makes the region void.

    Args:
        inputs: images (C, h, w) as the pipeline gives them.
        samples: their data samples, with labels.
        region: the region of the attack.
        score: 'rest' or 'all'.
        ignore_index: label of the pixels that are in no score.
    """
    for image, sample in zip(inputs, samples, strict=True):
        labels = sample.gt_sem_seg.data
        name = sample.metainfo.get('image_name', '')
        pixels = region.of_image(labels.reshape(labels.shape[-2:]), name, image.shape[1:])
        sample.set_metainfo({KEY: pixels})
        if score == 'rest':
            void = torch.full_like(labels, ignore_index, dtype=torch.int64)
            sample.gt_sem_seg.data = torch.where(pixels.expand_as(labels), void, labels.to(torch.int64))


def regions_of(samples: Sequence[Any], size: Sequence[int]) -> Tensor:
    """Returns the regions that ``note_regions`` wrote, (n, 1, h, w) bool at the size of the network's input."""
    pixels = torch.stack([sample.metainfo[KEY] for sample in samples])[:, None]
    if pixels.shape[2:] == torch.Size(size):
        return pixels
    return F.interpolate(pixels.float(), size=tuple(size), mode='nearest') > 0.5
