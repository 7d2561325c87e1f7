import numpy as np
import pytest
from miniature_trees import save_labels, write_cityscapes
from mmseg.datasets import CityscapesDataset
from PIL import Image

from mmadv.datasets.prepare import prepare_cityscapes
from mmadv.errors import UserError

# The published table, by name.
IDS = {
    'road': 7, 'sidewalk': 8, 'building': 11, 'wall': 12, 'fence': 13, 'pole': 17, 'traffic light': 19,
    'traffic sign': 20, 'vegetation': 21, 'terrain': 22, 'sky': 23, 'person': 24, 'rider': 25, 'car': 26, 'truck': 27,
    'bus': 28, 'train': 31, 'motorcycle': 32, 'bicycle': 33,
}  # fmt: skip


@pytest.fixture
def root(tmp_path):
    return write_cityscapes(tmp_path / 'cityscapes')


def test_train_ids(root):
    prepare_cityscapes(root)
    classes = CityscapesDataset.METAINFO['classes']
    expected = [255] * 34
    for name, number in IDS.items():
        expected[number] = classes.index(name)
    labels = np.array(Image.open(root / 'gtFine/train/aachen/aachen_000001_000019_gtFine_labelTrainIds.png'))
    assert labels.tolist() == [expected, expected]


def test_counts_then_resumes(root):
    void = 100 * 15 / 34
    assert prepare_cityscapes(root) == [
        f'train: 2 images with label maps (2 written, 0 there already), 19 of 19 classes occur, {void:.2f} % void; '
        'the complete split has 2975',
        f'val: 1 images with label maps (1 written, 0 there already), 19 of 19 classes occur, {void:.2f} % void; '
        'the complete split has 500',
    ]
    removed = root / 'gtFine/train/aachen/aachen_000000_000019_gtFine_labelTrainIds.png'
    unchanged = root / 'gtFine/train/aachen/aachen_000001_000019_gtFine_labelTrainIds.png'
    content, time = removed.read_bytes(), unchanged.stat().st_mtime_ns
    removed.unlink()
    assert '(1 written, 1 there already)' in prepare_cityscapes(root)[0]
    assert (removed.read_bytes(), unchanged.stat().st_mtime_ns) == (content, time)


def test_missing_annotation_is_told(root):
    (root / 'gtFine/train/aachen/aachen_000001_000019_gtFine_labelIds.png').unlink()
    sentence = r"aachen_000001_000019_leftImg8bit.png' has no label map; expected it at '.*_gtFine_labelIds.png'"
    with pytest.raises(UserError, match=sentence):
        prepare_cityscapes(root)


def test_value_of_no_label_is_told(root):
    path = root / 'gtFine/val/munster/munster_000000_000019_gtFine_labelIds.png'
    save_labels(path, np.full((2, 34), 34, np.uint8))
    with pytest.raises(UserError, match=r"munster_000000_000019_gtFine_labelIds.png' holds the value 34"):
        prepare_cityscapes(root)


def test_empty_folder_is_told(root):
    for path in (root / 'leftImg8bit/val/munster').iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"leftImg8bit/val' holds no file \*_leftImg8bit.png"):
        prepare_cityscapes(root)
