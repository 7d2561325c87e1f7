"""Per-image, per-class pixel counts, the metrics that follow from them, and the worst case over attacks.

Everything an evaluation reports is a function of three areas per image and class: the intersection of
prediction and label, the predicted area and the labelled area, all inside the valid pixels. They are small,
add up over images and processes, and let the worst case be chosen after the fact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Counts:
    """Pixel counts of N images and K classes, over valid pixels only.

    Attributes:
        intersection: (N, K) int64, pixels whose prediction and label are both class k.
        prediction: (N, K) int64, valid pixels predicted as class k.
        label: (N, K) int64, pixels labelled as class k.
    """

    intersection: np.ndarray
    prediction: np.ndarray
    label: np.ndarray

    def __post_init__(self) -> None:
        shapes = {self.intersection.shape, self.prediction.shape, self.label.shape}
        if len(shapes) != 1 or self.label.ndim != 2:
            raise ValueError(f'the three counts must be of one shape (N, K), found {sorted(shapes)}')

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
        """Returns the accuracy of each image over its valid pixels, (N,) float64, nan where nothing is valid."""
        return _ratio(self.correct, self.valid)

    def select(self, images: Any) -> Counts:
        """Returns the counts of some images, given by indexes or a mask."""
        return Counts(self.intersection[images], self.prediction[images], self.label[images])

    def total(self) -> Counts:
        """Returns the sums over the images, as the counts of one image."""
        return Counts(*(area.sum(axis=0, keepdims=True) for area in (self.intersection, self.prediction, self.label)))

    @staticmethod
    def concatenate(parts: Sequence[Counts]) -> Counts:
        """Returns the counts of all images of ``parts``, in order."""
        return Counts(
            np.concatenate([part.intersection for part in parts]),
            np.concatenate([part.prediction for part in parts]),
            np.concatenate([part.label for part in parts]),
        )


def count(predictions: Any, labels: Any, num_classes: int, ignore_index: int = 255, void: Sequence[int] = ()) -> Counts:
    """Returns the counts of a batch of predictions.

    Args:
        predictions: (N, H, W) integers in [0, num_classes), tensor or array.
        labels: (N, H, W) integers in [0, num_classes), or ``ignore_index`` where the pixel is in no count.
        num_classes: K.
        ignore_index: the label of pixels that do not count.
        void: labels of pixels that are no class though their predictions count: the IoU of what is predicted there
            falls, as in MMSegmentation's IoUMetric.

    Raises:
        ValueError: shapes differ, or a value lies outside its range.

    >>> counts = count(np.array([[[0, 1], [1, 1]]]), np.array([[[0, 0], [1, 255]]]), num_classes=2)
    >>> counts.intersection.tolist(), counts.prediction.tolist(), counts.label.tolist()
    ([[1, 1]], [[1, 2]], [[2, 1]])
    """
    predicted, labelled = _integers(predictions, 'predictions'), _integers(labels, 'labels')
    if predicted.shape != labelled.shape or predicted.ndim != 3:
        raise ValueError(f'predictions {predicted.shape} and labels {labelled.shape} must be of one shape (N, H, W)')
    valid = labelled != ignore_index
    known = valid & ~np.isin(labelled, list(void)) if void else valid
    for name, values in (('labels', labelled[known]), ('predictions', predicted[valid])):
        if values.size and (values.min() < 0 or values.max() >= num_classes):
            raise ValueError(
                f'{name} must lie in [0, {num_classes}), found values from {values.min()} to {values.max()}'
            )
    images = np.broadcast_to(np.arange(len(labelled))[:, None, None], labelled.shape)

    def areas(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
        bins = images[mask] * num_classes + values[mask]
        return np.bincount(bins, minlength=len(labelled) * num_classes).reshape(len(labelled), num_classes)

    return Counts(areas(labelled, known & (predicted == labelled)), areas(predicted, valid), areas(labelled, known))


def metrics(counts: Counts) -> dict[str, Any]:
    """Returns the metrics of a dataset, as fractions.

    ``aAcc``, ``mAcc``, ``mIoU`` and the per-class ``IoU`` and ``Acc`` come from the sums over all images and agree
    with MMSegmentation's IoUMetric: the accuracy of a class is nan where no pixel bears its label, its IoU is nan
    where it is neither labelled nor predicted, and nan classes are left out of the means. ``aAcc_image_mean``
    is the mean over images of each image's accuracy, the ACC of SEA. Images without a valid pixel are in no number.

    Returns:
        ``aAcc``, ``aAcc_image_mean``, ``mAcc``, ``mIoU``: floats, nan where undefined; ``IoU``, ``Acc``: (K,) float64;
        ``images``, ``pixels``: how many images and pixels counted.
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


def worst_case(members: Mapping[str, Counts]) -> tuple[Counts, np.ndarray]:
    """Returns the counts of each image's worst member, and which member that is.

    The worst member of an image is the one with the lowest accuracy; of equal ones the first (SEA, section 4).

    Args:
        members: name -> counts of the same images, at least one.

    Returns:
        The counts of the chosen predictions, and (N,) int64 indexes into ``members``.
    """
    _check_same_images(members)
    correct = np.stack([counts.correct for counts in members.values()])
    choice = correct.argmin(axis=0)
    return chosen_counts(members, choice), choice


def chosen_counts(members: Mapping[str, Counts], choice: np.ndarray) -> Counts:
    """Returns the counts of each image's chosen member.

    Args:
        members: name -> counts of the same N images.
        choice: (N,) indexes into ``members``.
    """
    parts, images = list(members.values()), np.arange(len(choice))
    return Counts(
        np.stack([part.intersection for part in parts])[choice, images],
        np.stack([part.prediction for part in parts])[choice, images],
        np.stack([part.label for part in parts])[choice, images],
    )


def _check_same_images(members: Mapping[str, Counts]) -> None:
    if not members:
        raise ValueError('a worst case needs at least one member')
    labels = [counts.label for counts in members.values()]
    for name, label in zip(members, labels, strict=True):
        if label.shape != labels[0].shape or (label != labels[0]).any():
            raise ValueError(f'member {name} was counted on other images than {next(iter(members))}')


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Returns part / whole in float64, nan where whole is zero."""
    result = np.full(np.shape(whole), np.nan)
    np.divide(part, whole, out=result, where=np.asarray(whole) > 0)
    return result


def _mean(values: np.ndarray) -> float:
    """Returns the mean of what is not nan, nan if that is nothing."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float('nan')


def _integers(values: Any, name: str) -> np.ndarray:
    array = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    if array.dtype.kind not in 'iu':
        raise ValueError(f'{name} must be integers, found {array.dtype}')
    return array.astype(np.int64, copy=False)
