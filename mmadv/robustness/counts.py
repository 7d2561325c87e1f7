"""Per-image, per-class pixel counts, the metrics that follow from them, and the worst case over attacks.

Every metric of an evaluation is a function of three areas per image and class: the intersection of prediction and
label, the predicted area and the labelled area. All three count valid pixels only. The areas take little memory and add
up over images and processes. The worst case can be chosen from them after the attacks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch

from mmadv.errors import UserError
from mmadv.fields import IgnoreIndex, Positive, checked, checked_exactly
from mmadv.shapes import INTEGERS, Shaped


def not_negative(values: np.ndarray) -> tuple[str, str] | None:
    """Returns the range that values must lie in and the lowest value found, or None if all values fit."""
    lowest = values.min() if values.size else 0
    return None if lowest >= 0 else ('at least 0', str(lowest))


Areas = Annotated[np.ndarray, Shaped('N K', INTEGERS, not_negative)]
Choice = Annotated[np.ndarray, Shaped('N', INTEGERS)]
Maps = Annotated[torch.Tensor | np.ndarray, Shaped('N H W', INTEGERS)]


@checked_exactly
@dataclass(frozen=True)
class Counts:
    """Pixel counts of N images and K classes, over valid pixels only.

    Attributes:
        intersection: (N, K) int64, pixels whose prediction and label are both class k.
        prediction: (N, K) int64, valid pixels predicted as class k.
        label: (N, K) int64, pixels labelled as class k.

    Raises:
        UserError: shapes differ, counts are negative, or an intersection is larger than the prediction or the label.
    """

    intersection: Areas
    prediction: Areas
    label: Areas

    def __post_init__(self) -> None:
        for name, area in (('prediction', self.prediction), ('label', self.label)):
            if (self.intersection > area).any():
                raise UserError(f'Counts.{name} must be at least the intersection, which is a part of it')

    def __len__(self) -> int:
        return len(self.label)

    @property
    def num_classes(self) -> int:
        """Returns K."""
        return self.label.shape[1]

    @property
    def valid(self) -> np.ndarray:
        """Returns the number of valid pixels of each image, (N,) int64."""
        return self.label.sum(axis=1)

    @property
    def correct(self) -> np.ndarray:
        """Returns the number of correctly predicted pixels of each image, (N,) int64."""
        return self.intersection.sum(axis=1)

    @property
    def accuracy(self) -> np.ndarray:
        """Returns the accuracy of each image over its valid pixels, (N,) float64, nan if no pixel is valid."""
        return _ratio(self.correct, self.valid)

    @checked
    def select(self, images: Any) -> Counts:
        """Returns the counts of some images.

        Args:
            images: indexes, a mask, or a slice.

        Raises:
            UserError: ``images`` does not select rows of the N images.
        """
        try:
            rows = np.arange(len(self))[images]
        except (IndexError, TypeError, ValueError) as error:
            raise UserError(f'Counts.select: images must be indexes or a mask of {len(self)}; {error}') from None
        if rows.ndim != 1:
            raise UserError(f'Counts.select: images must be indexes or a mask of {len(self)}, in one dimension')
        return Counts(self.intersection[rows], self.prediction[rows], self.label[rows])

    def total(self) -> Counts:
        """Returns the sums over the images, as the counts of one image."""
        return Counts(*(area.sum(axis=0, keepdims=True) for area in (self.intersection, self.prediction, self.label)))

    @staticmethod
    @checked
    def concatenate(parts: Sequence[Counts]) -> Counts:
        """Returns the counts of all images of ``parts``, in order.

        Raises:
            UserError: there are no parts, or their numbers of classes differ.
        """
        classes = {part.num_classes for part in parts}
        if len(classes) != 1:
            raise UserError(f'Counts.concatenate: parts must be counts of the same classes; found {sorted(classes)}')
        return Counts(
            np.concatenate([part.intersection for part in parts]),
            np.concatenate([part.prediction for part in parts]),
            np.concatenate([part.label for part in parts]),
        )


@checked
def count(
    predictions: Maps,
    labels: Maps,
    num_classes: Positive,
    ignore_index: IgnoreIndex = 255,
    void: Sequence[IgnoreIndex] = (),
) -> Counts:
    """Returns the counts of a batch of predictions.

    Args:
        predictions: (N, H, W) integers in [0, num_classes), tensor or array.
        labels: (N, H, W) integers in [0, num_classes), or ``ignore_index`` for pixels that every count leaves out.
        num_classes: K.
        ignore_index: the label of pixels that do not count.
        void: labels that are no class, of pixels whose predictions still count. A class predicted there gets a lower
            IoU, as in MMSegmentation's IoUMetric.

    Raises:
        UserError: shapes differ, or a value lies outside its range.

    >>> counts = count(np.array([[[0, 1], [1, 1]]]), np.array([[[0, 0], [1, 255]]]), num_classes=2)
    >>> counts.intersection.tolist(), counts.prediction.tolist(), counts.label.tolist()
    ([[1, 1]], [[1, 2]], [[2, 1]])
    """
    predicted, labelled = _integers(predictions), _integers(labels)
    valid = labelled != ignore_index
    known = valid & ~np.isin(labelled, list(void)) if void else valid
    for name, values in (('labels', labelled[known]), ('predictions', predicted[valid])):
        if values.size and (values.min() < 0 or values.max() >= num_classes):
            raise UserError(
                f'{name} must lie in [0, {num_classes}), found values from {values.min()} to {values.max()}'
            )
    images = np.broadcast_to(np.arange(len(labelled))[:, None, None], labelled.shape)

    def areas(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
        bins = images[mask] * num_classes + values[mask]
        return np.bincount(bins, minlength=len(labelled) * num_classes).reshape(len(labelled), num_classes)

    return Counts(areas(labelled, known & (predicted == labelled)), areas(predicted, valid), areas(labelled, known))


@checked
def metrics(counts: Counts) -> dict[str, Any]:
    """Returns the metrics of a dataset, as fractions.

    ``aAcc``, ``mAcc``, ``mIoU`` and the per-class ``IoU`` and ``Acc`` come from the sums over all images and agree
    with MMSegmentation's IoUMetric. The accuracy of a class is nan if no pixel has its label. Its IoU is nan if no
    pixel is labelled or predicted as the class. The means leave nan classes out. ``aAcc_image_mean`` is the mean over
    images of each image's accuracy, the ACC of SEA. All metrics leave out images without a valid pixel.

    Returns:
        ``aAcc``, ``aAcc_image_mean``, ``mAcc``, ``mIoU``: floats, nan if undefined; ``IoU``, ``Acc``: (K,) float64;
        ``images``, ``pixels``: the numbers of images and pixels that count.
    """
    sums = counts.total()
    intersection, labelled = sums.intersection[0], sums.label[0]
    iou = _ratio(intersection, labelled + sums.prediction[0] - intersection)
    accuracy = _ratio(intersection, labelled)
    return {
        'aAcc': float(_ratio(sums.correct, sums.valid)[0]),
        'aAcc_image_mean': _mean(counts.accuracy),
        'mAcc': _mean(accuracy),
        'mIoU': _mean(iou),
        'IoU': iou,
        'Acc': accuracy,
        'images': int((counts.valid > 0).sum()),
        'pixels': int(sums.valid[0]),
    }


@checked
def worst_case(members: Mapping[str, Counts]) -> tuple[Counts, np.ndarray]:
    """Returns the counts of each image's worst member, and which member that is.

    The worst member of an image has the lowest accuracy. If several members are equally low, the first of them is
    chosen (SEA, section 4).

    Args:
        members: name -> counts of the same images, at least one.

    Returns:
        The counts of the chosen predictions, and (N,) int64 indexes into ``members``.
    """
    check_same_images(members)
    correct = np.stack([counts.correct for counts in members.values()])
    choice = correct.argmin(axis=0)
    return take_counts(members, choice), choice


@checked
def chosen_counts(members: Mapping[str, Counts], choice: Choice) -> Counts:
    """Returns the counts of each image's chosen member.

    Args:
        members: name -> counts of the same N images.
        choice: (N,) indexes into ``members``.

    Raises:
        UserError: the members are of different images, or a choice is not an index of a member.
    """
    images = check_same_images(members)
    if len(choice) != images or not ((choice >= 0) & (choice < len(members))).all():
        raise UserError(f'choice must hold an index below {len(members)} for each of {images} images')
    return take_counts(members, choice)


def take_counts(members: Mapping[str, Counts], choice: np.ndarray) -> Counts:
    """Returns the counts of each image's chosen member, as ``chosen_counts`` does, without its checks."""
    parts, images = list(members.values()), np.arange(len(choice))
    return Counts(
        np.stack([part.intersection for part in parts])[choice, images],
        np.stack([part.prediction for part in parts])[choice, images],
        np.stack([part.label for part in parts])[choice, images],
    )


def check_same_images(members: Mapping[str, Counts]) -> int:
    """Returns the number of images that the members were counted on.

    Raises:
        UserError: there are no members, or they were counted on different images.
    """
    if not members:
        raise UserError('members must hold at least one; found none')
    labels = [counts.label for counts in members.values()]
    for name, label in zip(members, labels, strict=True):
        if label.shape != labels[0].shape or (label != labels[0]).any():
            raise UserError(f'members: {name} was counted on other images than {next(iter(members))}')
    return len(labels[0])


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Returns part / whole in float64, nan if whole is zero."""
    result = np.full(np.shape(whole), np.nan)
    np.divide(part, whole, out=result, where=np.asarray(whole) > 0)
    return result


def _mean(values: np.ndarray) -> float:
    """Returns the mean of the values that are not nan, or nan if there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float('nan')


def _integers(values: torch.Tensor | np.ndarray) -> np.ndarray:
    array = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values
    return array.astype(np.int64, copy=False)
