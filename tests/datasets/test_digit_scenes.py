import numpy as np
import pytest
from mmseg.registry import DATASETS
from sklearn.datasets import load_digits, load_sample_images

from mmadv.datasets import DigitScenesDataset
from mmadv.datasets.digit_scenes import digit_images, draw_scene, photo_regions
from mmadv.errors import UserError

PIPELINE = [dict(type='LoadDigitScene'), dict(type='PackSegInputs')]


def test_scene_holds_digits_on_a_background():
    labels = np.stack([draw_scene('val', index)[1] for index in range(60)])
    assert set(np.unique(labels)) == set(range(11))
    background = (labels == 0).mean(axis=(1, 2))
    assert 0.75 < background.mean() < 0.85
    assert background.max() < 1
    classes = [len(np.unique(label)) - 1 for label in labels]
    assert min(classes) >= 1
    assert max(classes) <= 5


def test_image_is_uint8_pixels_over_the_whole_range():
    images = np.stack([draw_scene('train', index)[0] for index in range(30)])
    assert images.dtype == np.uint8
    assert images.shape == (30, 64, 64, 3)
    assert images.min() < 20
    assert images.max() > 235


def test_digits_stand_out_from_what_is_behind_them():
    for index in range(20):
        image, label = draw_scene('val', index)
        for value in np.unique(label)[1:]:
            contrast = np.abs(image[label == value].mean(0) - image[label == 0].mean(0)).max()
            assert contrast > 20, (index, value)


def test_split_index_and_seed_decide_every_pixel():
    image, label = draw_scene('train', 7, seed=3)
    again, label_again = draw_scene('train', 7, seed=3)
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(label, label_again)
    for other in (draw_scene('val', 7, seed=3), draw_scene('train', 8, seed=3), draw_scene('train', 7, seed=4)):
        assert (other[0] != image).mean() > 0.5


def test_drawing_leaves_numpys_global_generator_alone():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    draw_scene('train', 0)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_splits_share_no_digit():
    train, val = digit_images('train')[0], digit_images('val')[0]
    assert (len(train), len(val)) == (1437, 360)
    np.testing.assert_allclose(np.concatenate([train, val]) * 16, load_digits().images)
    assert not {image.tobytes() for image in train} & {image.tobytes() for image in val}


def test_splits_share_no_part_of_a_photograph():
    photos = load_sample_images().images
    for photo, train, val in zip(photos, photo_regions('train'), photo_regions('val'), strict=True):
        assert train.shape == (427, 480, 3)
        assert val.shape == (427, 160, 3)
        np.testing.assert_array_equal(np.concatenate([train, val], axis=1)[..., ::-1], photo)


def test_registered_dataset_gives_what_mmseg_trains_on():
    dataset = DATASETS.build(dict(type='DigitScenesDataset', split='val', length=12, seed=1, pipeline=PIPELINE))
    assert len(dataset) == 12
    assert dataset.metainfo['classes'][:3] == ('background', 'digit 0', 'digit 1')
    assert len(dataset.metainfo['palette']) == len(dataset.metainfo['classes']) == 11
    sample = dataset[11]
    image, label = draw_scene('val', 11, seed=1)
    np.testing.assert_array_equal(sample['inputs'].numpy(), image.transpose(2, 0, 1))
    np.testing.assert_array_equal(sample['data_samples'].gt_sem_seg.data.numpy()[0], label)
    assert sample['data_samples'].img_path == 'digit_scenes/val/00011'
    assert sample['data_samples'].ori_shape == (64, 64)
    np.testing.assert_array_equal(dataset[11]['inputs'], sample['inputs'])


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(split='vall', length=4), "split must be 'train' or 'val'; found 'vall'"),
        (dict(split='val', length=0), 'length must be an integer at least 1; found 0'),
    ],
)
def test_mistakes_are_told(arguments, message):
    with pytest.raises(UserError, match=message):
        DigitScenesDataset(**arguments)
