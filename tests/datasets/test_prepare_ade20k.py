import pytest
from miniature_trees import halves, save_labels, write_ade20k

from mmadv.datasets.prepare import prepare_ade20k
from mmadv.errors import UserError


@pytest.fixture
def root(tmp_path):
    return write_ade20k(tmp_path / 'ADEChallengeData2016')


def test_counts_and_writes_nothing(root):
    before = sorted(root.rglob('*'))
    assert prepare_ade20k(root) == [
        'training: 3 images with label maps (0 written, 3 there already), 2 of 151 classes occur, 0.00 % void; '
        'the complete split has 20210; background is 50.00 % of the pixels',
        'validation: 1 images with label maps (0 written, 1 there already), 2 of 151 classes occur, 0.00 % void; '
        'the complete split has 2000; background is 50.00 % of the pixels',
    ]
    assert sorted(root.rglob('*')) == before


def test_missing_label_map_is_told(root):
    (root / 'annotations' / 'training' / 'ADE_train_00000002.png').unlink()
    with pytest.raises(UserError, match=r"ADE_train_00000002.jpg' has no label map; expected it at '.*00000002.png'"):
        prepare_ade20k(root)


def test_value_of_no_class_is_told(root):
    save_labels(root / 'annotations' / 'validation' / 'ADE_val_00000001.png', halves(0, 151))
    with pytest.raises(UserError, match=r"ADE_val_00000001.png' holds the value 151; valid are 0 to 150"):
        prepare_ade20k(root)


def test_missing_folder_is_told(root):
    (root / 'annotations' / 'validation').rename(root / 'elsewhere')
    with pytest.raises(UserError, match=r"folder '.*annotations/validation' does not exist"):
        prepare_ade20k(root)
