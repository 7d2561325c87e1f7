"""The dataset configs read what the preparations leave."""

import numpy as np
import pytest
from miniature_trees import (
    SIZE,
    halves,
    save_labels,
    write_acdc,
    write_ade20k,
    write_cityscapes,
    write_cityscapes_c,
    write_coco,
    write_names,
    write_voc,
)
from mmengine.config import Config
from mmseg.datasets import ADE20KDataset
from mmseg.registry import DATASETS

from mmadv.datasets import ADE20K151Dataset
from mmadv.datasets.prepare import prepare_cityscapes, prepare_cityscapes_c, prepare_coco, prepare_voc
from mmadv.errors import UserError


def prepared_voc(path):
    prepare_voc(write_voc(path / 'VOCdevkit'))
    return path / 'VOCdevkit' / 'VOC2012'


def prepared_cityscapes(path):
    prepare_cityscapes(write_cityscapes(path))
    return path


def prepared_coco(path):
    prepare_coco(write_coco(path))
    return path


def prepared_cityscapes_c(path):
    prepare_cityscapes_c(write_cityscapes_c(path / 'c'), write_cityscapes(path / 'cityscapes'))
    return path / 'c'


TREES = {
    'voc2012_aug_473': prepared_voc,
    'voc2012_aug_472': prepared_voc,
    'ade20k_151_512': write_ade20k,
    'cityscapes_712': prepared_cityscapes,
    'coco_voc21': prepared_coco,
    'cityscapes_c_as_stored': prepared_cityscapes_c,
    **{f'acdc_{condition}_as_stored': write_acdc for condition in ('fog', 'night', 'rain', 'snow')},
}


@pytest.fixture
def config_of(request):
    return lambda name: Config.fromfile(request.config.rootpath / 'configs/_base_/datasets' / f'{name}.py')


def build(config, root):
    """Returns the dataset of a config, read from another root."""
    for part in config.get('datasets', [config]):
        part.data_root = str(root)
    return DATASETS.build(config)


@pytest.mark.parametrize(
    ('name', 'images', 'values'),
    [
        ('voc2012_aug_473', 3, {0, 1, 2, 3, 255}),
        ('voc2012_aug_472', 4, {0, 1, 3, 5, 255}),
        ('ade20k_151_512', 3, {0, 150, 255}),
        ('cityscapes_712', 2, {*range(19), 255}),
        ('coco_voc21', 1, {0, 8, 18, 255}),
    ],
)
def test_training_crops(name, images, values, config_of, tmp_path):
    np.random.seed(0)
    config = config_of(name)
    dataset = build(config.train_dataloader.dataset, TREES[name](tmp_path))
    assert len(dataset) == images
    seen = set()
    for index in (*range(images), *range(images)):
        sample = dataset[index]
        assert sample['inputs'].shape == (3, *config.crop_size)
        labels = sample['data_samples'].gt_sem_seg.data
        assert labels.shape == (1, *config.crop_size)
        seen |= set(labels.unique().tolist())
    assert seen <= values
    assert len(seen) > 1


@pytest.mark.parametrize('name', ['voc2012_aug_473', 'ade20k_151_512'])
def test_training_resizes_the_short_side_and_voids_the_padding(name, config_of, tmp_path):
    config = config_of(name)
    base = {'voc2012_aug_473': 512, 'ade20k_151_512': 520}[name]
    arguments = config.train_dataloader.dataset
    for ratio in (0.5, 2.0):
        arguments.pipeline[2].ratio_range = (ratio, ratio)
        sample = build(arguments.copy(), TREES[name](tmp_path / str(ratio)))[0]
        crop, side = config.crop_size[0], int(base * ratio)
        void = sample['data_samples'].gt_sem_seg.data[0] == 255
        inside = sample['inputs'].sum(dim=0) > 0
        assert (void == ~inside).all()
        assert inside.sum() == min(side, crop) * min(side * SIZE[1] // SIZE[0], crop)


@pytest.mark.parametrize('name', ['voc2012_aug_473', 'ade20k_151_512'])
def test_papers_evaluation_crops_the_centre_and_scores_there(name, config_of, tmp_path):
    config, root = config_of(name), TREES[name](tmp_path)
    if name == 'voc2012_aug_473':
        for label_map in (root / 'SegmentationClass').glob('*.png'):
            label_map.unlink()
            save_labels(label_map, halves(0, 20))
    sample = build(config.val_dataloader.dataset, root)[0]
    side = config.crop_size[0]
    labels = sample['data_samples'].gt_sem_seg.data[0]
    assert sample['inputs'].shape == (3, side, side)
    assert labels.shape == sample['data_samples'].ori_shape == sample['data_samples'].img_shape == (side, side)
    # The halves meet in the middle of the centre crop.
    assert (labels[:, : side // 2 - 1] == 0).all()
    assert (labels[:, side // 2 + 2 :] == {'voc2012_aug_473': 20, 'ade20k_151_512': 150}[name]).all()


@pytest.mark.parametrize('name', ['voc2012_aug_473', 'ade20k_151_512'])
def test_usual_evaluation_scores_at_the_size_of_the_file(name, tmp_path, request):
    base = request.config.rootpath / 'configs/_base_/datasets' / f'{name}.py'
    leaf = tmp_path / 'leaf.py'
    leaf.write_text(
        f'_base_ = {str(base)!r}\n'
        'test_dataloader = dict(batch_size=1, dataset=dict(pipeline={{_base_.whole_test_pipeline}}))\n'
    )
    config = Config.fromfile(leaf)
    assert (config.test_dataloader.batch_size, config.val_dataloader.batch_size) == (1, 8)
    assert 'CenterCrop' in [transform.type for transform in config.val_dataloader.dataset.pipeline]
    sample = build(config.test_dataloader.dataset, TREES[name](tmp_path))[0]
    assert sample['inputs'].shape == (3, 512, 768)
    assert sample['data_samples'].gt_sem_seg.data.shape == (1, *SIZE)
    assert sample['data_samples'].ori_shape == SIZE


@pytest.mark.parametrize(
    ('name', 'inputs', 'scored'),
    [
        ('voc2012_aug_472', SIZE, SIZE),
        ('cityscapes_712', (2, 34), (2, 34)),
        ('coco_voc21', (520, 780), (520, 780)),
    ],
)
def test_evaluation_of_whole_images(name, inputs, scored, config_of, tmp_path):
    config = config_of(name)
    sample = build(config.val_dataloader.dataset, TREES[name](tmp_path))[0]
    assert sample['inputs'].shape == (3, *inputs)
    assert sample['data_samples'].ori_shape == scored
    assert sample['data_samples'].gt_sem_seg.data.shape == (1, *scored)


@pytest.mark.parametrize('name', [name for name in TREES if name.endswith('as_stored')])
def test_tests_under_other_conditions(name, config_of, tmp_path):
    dataset = build(config_of(name).test_dataloader.dataset, TREES[name](tmp_path))
    assert len(dataset) == 1
    condition = 'fog-3' if name.startswith('cityscapes') else f'rgb_anon/{name.split("_")[1]}/val'
    sample = dataset[0]
    assert condition in sample['data_samples'].img_path
    assert set(sample['data_samples'].gt_sem_seg.data.unique().tolist()) == {*range(19), 255}


def test_ade20k_has_the_background_before_its_classes():
    classes, palette = ADE20K151Dataset.METAINFO['classes'], ADE20K151Dataset.METAINFO['palette']
    assert len(classes) == len(palette) == 151
    assert (classes[0], classes[1], classes[150]) == ('background', 'wall', 'flag')
    assert palette[1] == ADE20KDataset.METAINFO['palette'][0]


@pytest.mark.parametrize(
    ('name', 'damage', 'sentence'),
    [
        (
            'voc2012_aug_473',
            lambda root: (root / 'ImageSets/Segmentation/val.txt').unlink(),
            r"VOC2012Dataset: the list of images '.*val.txt' does not exist; write it with mmadv prepare",
        ),
        (
            'voc2012_aug_473',
            lambda root: write_names(root / 'ImageSets/Segmentation/val.txt', []),
            r"VOC2012Dataset: the list of images '.*val.txt' is empty",
        ),
        (
            'voc2012_aug_473',
            lambda root: (root / 'JPEGImages/2007_000042.jpg').unlink(),
            r"image '.*JPEGImages/2007_000042.jpg' does not exist",
        ),
        (
            'voc2012_aug_473',
            lambda root: (root / 'SegmentationClass/2007_000042.png').unlink(),
            r"2007_000042.jpg' has no label map; expected it at '.*SegmentationClass/2007_000042.png'",
        ),
        (
            'ade20k_151_512',
            lambda root: (root / 'annotations/validation/ADE_val_00000001.png').unlink(),
            r"ADE_val_00000001.jpg' has no label map; expected it at '.*annotations/validation/ADE_val_00000001.png'",
        ),
        (
            'ade20k_151_512',
            lambda root: (root / 'images/validation/ADE_val_00000001.jpg').unlink(),
            r"ADE20K151Dataset: the folder '.*images/validation' holds no .jpg image",
        ),
        (
            'cityscapes_712',
            lambda root: (root / 'gtFine/val/munster/munster_000000_000019_gtFine_labelTrainIds.png').unlink(),
            r"000019_leftImg8bit.png' has no label map; expected it at '.*_gtFine_labelTrainIds.png'",
        ),
        (
            'cityscapes_712',
            lambda root: (root / 'leftImg8bit').rename(root / 'images'),
            r"Cityscapes19Dataset: the folder '.*leftImg8bit/val' does not exist; .* data_root",
        ),
        (
            'coco_voc21',
            lambda root: (root / 'annotations/voc21/val2017/000000000139.png').unlink(),
            r"000000000139.jpg' has no label map; expected it at '.*voc21/val2017/000000000139.png'",
        ),
    ],
)
def test_missing_files_are_told(name, damage, sentence, config_of, tmp_path):
    root = TREES[name](tmp_path)
    damage(root)
    with pytest.raises(UserError, match=sentence):
        build(config_of(name).val_dataloader.dataset, root)
