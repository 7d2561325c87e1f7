"""Targets of an attack: one class everywhere, one class removed, or given label maps."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch
from torch import Tensor

from mmadv.attacks import Attack, Objective, WorstCase
from mmadv.errors import UserError, nearest


class AttackTarget(ABC):
    """The target of an attack: the labels that the attack gets, and the rule when a pixel counts as reached.

    Attributes:
        targeted: True if the attack's labels are the wanted classes; False if the prediction shall leave them.
    """

    targeted = True

    @abstractmethod
    def wanted(self, labels: Tensor, names: Sequence[str], ignore_index: int) -> Tensor:
        """Returns the attack's labels (n, H, W), with ``ignore_index`` at the pixels that the attack leaves alone.

        Args:
            labels: true labels, (n, H, W) int64.
            names: names of the images.
            ignore_index: label of the pixels that do not count; these pixels are never part of the target.
        """

    def reached(self, predictions: Tensor, wanted: Tensor, ignore_index: int) -> list[list[int]]:
        """Returns [pixels reached, pixels wanted] of each image."""
        valid = wanted != ignore_index
        hit = ((predictions == wanted) == self.targeted) & valid
        return [[int(one.sum()), int(all_.sum())] for one, all_ in zip(hit, valid, strict=True)]


@dataclass(frozen=True)
class ToClass(AttackTarget):
    """A target that turns every labelled pixel into one class."""

    index: int

    def wanted(self, labels: Tensor, names: Sequence[str], ignore_index: int) -> Tensor:
        return torch.where(labels == ignore_index, labels, self.index)


@dataclass(frozen=True)
class RemoveClass(AttackTarget):
    """A target that turns the pixels of one class into any other class; the other pixels do not count."""

    index: int
    targeted = False

    def wanted(self, labels: Tensor, names: Sequence[str], ignore_index: int) -> Tensor:
        return torch.where(labels == self.index, labels, ignore_index)


@dataclass(frozen=True)
class ToMasks(AttackTarget):
    """A target that reads label maps from a folder: a PNG of class indexes per image, at the image's relative path."""

    folder: Path
    num_classes: int

    def wanted(self, labels: Tensor, names: Sequence[str], ignore_index: int) -> Tensor:
        masks = torch.stack([self._mask(name, tuple(labels.shape[1:]), ignore_index) for name in names])
        return torch.where(labels == ignore_index, labels, masks.to(labels))

    def _mask(self, name: str, size: tuple[int, ...], ignore_index: int) -> Tensor:
        path = (self.folder / name).with_suffix('.png')
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
        if mask is None or mask.ndim != 2:
            raise UserError(
                f'test_cfg.target: {path} is missing or is not a PNG of one channel; write one for each image'
            )
        if mask.shape != size:
            raise UserError(f'test_cfg.target: {path} has the size {mask.shape}, its label map {size} (height, width)')
        labels = torch.from_numpy(mask.astype('int64'))
        wrong = (labels >= self.num_classes) & (labels != ignore_index)
        if bool(wrong.any()):
            raise UserError(
                f'test_cfg.target: {path} holds {int(labels[wrong][0])}, neither one of {self.num_classes} classes nor '
                f'{ignore_index}'
            )
        return labels


def parse_attack_target(text: str, classes: Sequence[str]) -> AttackTarget:
    """Returns the target that a text names: ``class:NAME``, ``remove:NAME`` or ``masks:DIR``.

    Raises:
        UserError: the text has another form, or the dataset does not have the class.
    """
    kind, _, value = text.partition(':')
    if kind == 'masks' and value:
        if not Path(value).is_dir():
            raise UserError(f'test_cfg.target: the folder {value} does not exist')
        return ToMasks(Path(value), len(classes))
    if kind not in ('class', 'remove') or not value:
        raise UserError(f"test_cfg.target must be class:NAME, remove:NAME or masks:DIR; found '{text}'")
    if value not in classes:
        raise UserError(f"test_cfg.target: the dataset has no class '{value}'{nearest(value, classes)}")
    index = list(classes).index(value)
    return ToClass(index) if kind == 'class' else RemoveClass(index)


def with_targeted(attack: Attack, *, targeted: bool) -> Attack:
    """Returns an attack whose labels are the wanted classes, or the classes to leave.

    Raises:
        UserError: the attack cannot have a target.
    """
    if isinstance(attack, WorstCase):
        raise UserError(
            'test_cfg.target takes a single attack, such as ama or auto; an ensemble has no worst case for a target'
        )
    changes: dict[str, object] = {}
    for item in dataclasses.fields(attack):
        part = getattr(attack, item.name)
        if isinstance(part, Objective):
            changes[item.name] = dataclasses.replace(part, targeted=targeted)
        elif isinstance(part, Attack):
            changes[item.name] = with_targeted(part, targeted=targeted)
        elif isinstance(part, Mapping):
            changes[item.name] = {name: with_targeted(inner, targeted=targeted) for name, inner in part.items()}
    if not changes:
        raise UserError(f'test_cfg.target: {type(attack).__name__} follows no objective, so it cannot have a target')
    return dataclasses.replace(attack, **changes)
