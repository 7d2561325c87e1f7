"""The class weights of the data set that an attack is evaluated on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mmadv.attacks.class_weights import frequency_weights
from mmadv.engine.data import leaves
from mmadv.errors import UserError

# Datasets whose constants SEA's authors published; classes derived from these datasets have the same constants.
PUBLISHED_OF = {'VOC2012Dataset': 'voc_21', 'PascalVOCDataset': 'voc_21', 'ADE20K151Dataset': 'ade20k_151'}


@dataclass(frozen=True)
class ClassWeights:
    """Class weights of a data set, and their origin.

    Attributes:
        value: a name of published constants, or one number for each class.
        note: a sentence for the results that says which weights they are.
    """

    value: str | tuple[float, ...]
    note: str


def class_weights_of_dataset(dataset: Any) -> ClassWeights:
    """Returns the published class weights of a data set, or else weights from its own label frequencies.

    The frequencies are counted over all images, in the labels that are scored: the labels after the pipeline.

    Args:
        dataset: a built dataset, in any nesting of wrappers.

    Raises:
        UserError: an image has no labels.
    """
    names = {published_name(part) for part in leaves(dataset)}
    if len(names) == 1 and (name := names.pop()) is not None:
        return ClassWeights(name, f"the class weights of masked_balanced_ce are the published ones, '{name}'")
    classes = len(dataset.metainfo['classes'])
    counts = np.zeros(classes, dtype=np.int64)
    for index in range(len(dataset)):
        sample = dataset[index]['data_samples']
        if 'gt_sem_seg' not in sample:
            raise UserError(
                'the class weights of masked_balanced_ce are counted in the labels, and the test pipeline loads none; '
                'put LoadAnnotations into it'
            )
        labels = sample.gt_sem_seg.data.numpy().ravel()
        counts += np.bincount(labels[(labels >= 0) & (labels < classes)], minlength=classes)
    note = f'the class weights of masked_balanced_ce are made of the label frequencies of all {len(dataset)} images'
    return ClassWeights(frequency_weights(counts.tolist()), note)


def published_name(part: Any) -> str | None:
    """Returns the name of a dataset's published constants; None if it has none, or if its classes differ."""
    kinds: tuple[Any, ...] = type(part).__mro__
    for kind in kinds:
        name = PUBLISHED_OF.get(kind.__name__)
        if name is not None:
            same = tuple(part.metainfo['classes']) == tuple(kind.METAINFO['classes'])
            return name if same else None
    return None
