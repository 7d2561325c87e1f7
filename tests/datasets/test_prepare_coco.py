import builtins
import json

import numpy as np
import pytest
from miniature_trees import write_coco
from PIL import Image

from mmadv.datasets.prepare import prepare_coco
from mmadv.errors import UserError

BIRD, BOTTLE, CAT, COUCH = 3, 5, 8, 18


@pytest.fixture
def root(tmp_path):
    return write_coco(tmp_path / 'coco')


def labels_of(root, split, number):
    return np.array(Image.open(root / 'annotations' / 'voc21' / split / f'{number:012d}.png'))


def change(root, split, edit):
    path = root / 'annotations' / f'instances_{split}.json'
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_smaller_objects_lie_on_top_and_crowds_below(root):
    prepare_coco(root)
    expected = np.zeros((40, 60), np.uint8)  # the truck is background
    expected[:, :30] = 255
    expected[10:30, 10:50] = COUCH
    expected[15:20, 20:30] = CAT
    np.testing.assert_array_equal(labels_of(root, 'train2017', 9), expected)


def test_polygons_of_one_object(root):
    prepare_coco(root)
    expected = np.zeros((40, 60), np.uint8)
    expected[:10, :10] = expected[20:30, 20:30] = BOTTLE
    np.testing.assert_array_equal(labels_of(root, 'val2017', 139), expected)


def test_lists_and_counts(root):
    report = prepare_coco(root)
    # The bird has no more than 1000 pixels; validation takes every image.
    assert (root / 'annotations' / 'voc21' / 'train2017.txt').read_text() == '000000000009\n'
    assert (root / 'annotations' / 'voc21' / 'val2017.txt').read_text() == '000000000139\n'
    assert np.count_nonzero(labels_of(root, 'train2017', 25) == BIRD) == 16
    void = 100 * (1200 - 20 * 20) / (2 * 40 * 60)
    assert report == [
        f'train2017: 2 images with label maps (2 written, 0 there already), 4 of 21 classes occur, {void:.2f} % void; '
        'the complete split has 118287',
        'train2017.txt: 1 images (written)',
        'val2017: 1 images with label maps (1 written, 0 there already), 2 of 21 classes occur, 0.00 % void; '
        'the complete split has 5000',
        'val2017.txt: 1 images (written)',
    ]


def test_resumes_and_never_overwrites(root):
    prepare_coco(root)
    unchanged, removed = (root / 'annotations/voc21/train2017' / f'{number:012d}.png' for number in (9, 25))
    time, content = unchanged.stat().st_mtime_ns, removed.read_bytes()
    removed.unlink()
    removed.with_name(f'.{removed.name}.part').write_bytes(b'half')  # of an interrupted run
    assert '(1 written, 1 there already)' in prepare_coco(root)[0]
    assert (unchanged.stat().st_mtime_ns, removed.read_bytes()) == (time, content)
    assert sorted(path.name for path in removed.parent.iterdir()) == [unchanged.name, removed.name]


def test_missing_image_is_told(root):
    (root / 'train2017' / '000000000025.jpg').unlink()
    with pytest.raises(UserError, match=r"image '.*000000000025.jpg' does not exist"):
        prepare_coco(root)


def test_missing_or_cut_annotations_are_told(root):
    path = root / 'annotations' / 'instances_val2017.json'
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"instances_val2017.json' is not COCO's file of instances"):
        prepare_coco(root)
    path.unlink()
    with pytest.raises(UserError, match=r"instances_val2017.json' does not exist"):
        prepare_coco(root)


def test_other_categories_are_told(root):
    change(root, 'train2017', lambda content: content['categories'].pop(0))
    with pytest.raises(UserError, match=r"instances_train2017.json' has no category 'person'"):
        prepare_coco(root)


def test_outline_that_cannot_be_drawn_is_told(root):
    change(root, 'val2017', lambda content: content['annotations'][0].update(segmentation=[[0.0, 1.0]]))
    with pytest.raises(UserError, match=r'outline of annotation 6 cannot be drawn'):
        prepare_coco(root)


def test_missing_pycocotools_is_told(root, monkeypatch):
    genuine = builtins.__import__

    def without_pycocotools(name, *arguments, **keywords):
        if name.startswith('pycocotools'):
            raise ImportError(name)
        return genuine(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, '__import__', without_pycocotools)
    with pytest.raises(UserError, match=r"pycocotools, which is not installed; pip install 'mmadv\[coco\]'"):
        prepare_coco(root)
