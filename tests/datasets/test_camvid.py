import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmseg.registry import DATASETS

from mmadv.datasets import CamVidDataset
from mmadv.errors import UserError

CONFIG = 'configs/_base_/datasets/camvid_160x120.py'
PREFIX = dict(img_path='images/val', seg_map_path='annotations/val')


@pytest.fixture
def root(tmp_path):
    """A CamVid folder of two frames per split: the left half sky, the right half bicyclist, the first row void."""
    for split in ('train', 'val'):
        (tmp_path / 'images' / split).mkdir(parents=True)
        (tmp_path / 'annotations' / split).mkdir(parents=True)
        for name in ('b', 'a'):
            image = np.full((360, 480, 3), (200, 100, 50), np.uint8)
            label = np.zeros((360, 480), np.uint8)
            label[:, 240:] = 10
            label[:12] = 255
            cv2.imwrite(str(tmp_path / 'images' / split / f'{name}.jpg'), image)
            cv2.imwrite(str(tmp_path / 'annotations' / split / f'{name}.png'), label)
    return tmp_path


def dataset_of(config, which, root):
    arguments = config[f'{which}_dataloader'].dataset
    arguments.data_root = str(root)
    return DATASETS.build(arguments)


def test_frames_are_scored_at_the_small_size(root, request):
    dataset = dataset_of(Config.fromfile(request.config.rootpath / CONFIG), 'test', root)
    sample = dataset[0]
    assert sample['inputs'].shape == (3, 120, 160)
    assert sample['inputs'][:, 60, 60].tolist() == pytest.approx([200, 100, 50], abs=3)
    labels = sample['data_samples'].gt_sem_seg.data
    assert labels.shape == (1, 120, 160)
    assert labels.unique().tolist() == [0, 10, 255]
    assert (labels[0, 10:, :80] == 0).all()
    assert (labels[0, 10:, 80:] == 10).all()
    assert (labels[0, :4] == 255).all()
    assert sample['data_samples'].ori_shape == (120, 160)
    assert sample['data_samples'].img_path.endswith('images/val/a.jpg')


def test_training_crops_have_the_same_size(root, request):
    dataset = dataset_of(Config.fromfile(request.config.rootpath / CONFIG), 'train', root)
    for index in (0, 1, 0, 1):
        sample = dataset[index]
        assert sample['inputs'].shape == (3, 120, 160)
        assert sample['data_samples'].gt_sem_seg.data.shape == (1, 120, 160)


def test_metainfo_names_eleven_classes_with_a_colour_each():
    classes = CamVidDataset.METAINFO['classes']
    assert (classes[0], classes[3], classes[10]) == ('sky', 'road', 'bicyclist')
    assert len(classes) == len(CamVidDataset.METAINFO['palette']) == 11
    assert len({tuple(colour) for colour in CamVidDataset.METAINFO['palette']}) == 11


def test_missing_folder_is_told(tmp_path):
    with pytest.raises(UserError, match=r"folder '.*nowhere/images/val' does not exist; .*data_root"):
        CamVidDataset(data_root=str(tmp_path / 'nowhere'), data_prefix=PREFIX)


def test_empty_folder_is_told(root):
    for file in (root / 'images' / 'val').iterdir():
        file.unlink()
    with pytest.raises(UserError, match=r"images/val' holds no .jpg image"):
        CamVidDataset(data_root=str(root), data_prefix=PREFIX)


def test_image_without_label_map_is_told(root):
    (root / 'annotations' / 'val' / 'b.png').unlink()
    with pytest.raises(UserError, match=r"images/val/b.jpg' has no label map; expected it at '.*val/b.png'"):
        CamVidDataset(data_root=str(root), data_prefix=PREFIX)
