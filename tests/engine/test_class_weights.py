"""The class weights that an evaluation gives its attacks."""

import numpy as np
import pytest
from mmengine.registry import DefaultScope
from mmseg.datasets import PascalVOCDataset

from mmadv.attacks.class_weights import frequency_weights
from mmadv.datasets import ADE20K151Dataset, COCOVOC21Dataset, VOC2012Dataset
from mmadv.datasets.digit_scenes import draw_scene
from mmadv.engine.class_weights import class_weights_of_dataset, published_name
from mmadv.engine.data import build_dataset
from mmadv.errors import UserError

DIGITS = dict(
    type='DigitScenesDataset', split='val', length=7, pipeline=[dict(type='LoadDigitScene'), dict(type='PackSegInputs')]
)


@pytest.fixture(autouse=True)
def mmseg_scope():
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


@pytest.mark.parametrize(
    ('kind', 'name'), [(VOC2012Dataset, 'voc_21'), (PascalVOCDataset, 'voc_21'), (ADE20K151Dataset, 'ade20k_151')]
)
def test_published_weights_are_those_of_the_dataset(kind, name):
    if kind is PascalVOCDataset:  # which looks for its list when it is made
        dataset = object.__new__(kind)
        dataset._metainfo = dict(kind.METAINFO)
    else:
        dataset = kind(lazy_init=True)
    weights = class_weights_of_dataset(dataset)
    assert weights.value == name
    assert weights.note == f"the class weights of masked_balanced_ce are the published ones, '{name}'"


def test_other_data_has_the_weights_of_its_own_scored_labels():
    weights = class_weights_of_dataset(build_dataset(DIGITS, 'test_dataloader.dataset'))
    labels = np.concatenate([draw_scene('val', index)[1].ravel() for index in range(7)])
    assert weights.value == frequency_weights(np.bincount(labels, minlength=11).tolist())
    assert sum(weights.value) == pytest.approx(1, abs=1e-4) and weights.value[0] < min(filter(None, weights.value[1:]))
    assert 'are made of the label frequencies of all 7 images' in weights.note


def test_other_data_and_other_classes_have_no_published_weights():
    """COCO in VOC's classes has other frequencies; so has VOC in other classes."""
    assert COCOVOC21Dataset.METAINFO['classes'] == VOC2012Dataset.METAINFO['classes']
    assert published_name(COCOVOC21Dataset(lazy_init=True)) is None
    reduced = VOC2012Dataset(lazy_init=True, metainfo=dict(classes=('background', 'person')))
    assert published_name(reduced) is None
    assert published_name(VOC2012Dataset(lazy_init=True)) == 'voc_21'


def test_labels_are_needed():
    dataset = build_dataset(DIGITS, 'test_dataloader.dataset')

    class Unlabelled:
        metainfo = dataset.metainfo

        def __len__(self):
            return 1

        def __getitem__(self, index):
            sample = dataset[index]
            del sample['data_samples'].gt_sem_seg
            return sample

    with pytest.raises(UserError, match='are counted in the labels, and the test pipeline loads none'):
        class_weights_of_dataset(Unlabelled())
