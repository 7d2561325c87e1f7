import numpy as np
import pytest
from miniature_trees import write_acdc, write_cityscapes, write_cityscapes_c
from PIL import Image

from mmadv.datasets.prepare import prepare_acdc, prepare_cityscapes, prepare_cityscapes_c
from mmadv.errors import UserError

VOID = f'{100 * 15 / 34:.2f} % void'


def test_every_condition_is_checked_and_a_missing_label_map_is_made(tmp_path):
    root = write_acdc(tmp_path)
    label_map = root / 'gt/night/val/GOPR0475/GOPR0475_frame_000124_gt_labelTrainIds.png'
    labels = np.array(Image.open(label_map))
    label_map.unlink()
    lines = prepare_acdc(root)
    assert len(lines) == 8
    assert lines[0] == (
        f'fog train: 2 images with label maps (0 written, 2 there already), 19 of 19 classes occur, {VOID}; '
        'the complete split has 400'
    )
    assert lines[3].startswith('night val: 1 images with label maps (1 written, 0 there already)')
    assert lines[3].endswith('the complete split has 106')
    np.testing.assert_array_equal(np.array(Image.open(label_map)), labels)


def test_a_missing_condition_is_told(tmp_path):
    root = write_acdc(tmp_path)
    (root / 'rgb_anon/snow').rename(root / 'rgb_anon/hail')
    with pytest.raises(UserError, match=r"rgb_anon/snow/train' does not exist; unpack rgb_anon_trainvaltest.zip there"):
        prepare_acdc(root)


def test_all_conditions_of_cityscapes_c_share_the_label_maps(tmp_path):
    root, source = write_cityscapes_c(tmp_path / 'c'), write_cityscapes(tmp_path / 'cityscapes')
    first = (
        f'fog-3: 1 images with label maps ({{}} there already), 19 of 19 classes occur, {VOID}; '
        'the complete split has 500'
    )
    assert prepare_cityscapes_c(root, source) == [first.format('1 written, 0'), 'gaussian_noise-1: the same images']
    assert prepare_cityscapes_c(root) == [first.format('0 written, 1'), 'gaussian_noise-1: the same images']
    prepare_cityscapes(source)
    written = 'gtFine/val/munster/munster_000000_000019_gtFine_labelTrainIds.png'
    np.testing.assert_array_equal(np.array(Image.open(root / written)), np.array(Image.open(source / written)))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda root, image: image.rename(image.with_name('munster_000001_000019_leftImg8bit.png')),
         "gaussian_noise-1' lacks the image munster/munster_000000_000019_leftImg8bit.png, which '.*fog-3' has"),
        (lambda root, image: Image.open(image).resize((17, 1)).save(image), "has another size than in '.*fog-3'"),
        (lambda root, image: [(root / name).rename(root / f'{name}x') for name in ('fog-3', 'gaussian_noise-1')],
         'has no folder such as fog-3, the name of a corruption and a severity from 1 to 5'),
    ],
)  # fmt: skip
def test_conditions_that_do_not_agree_are_told(change, message, tmp_path):
    root, source = write_cityscapes_c(tmp_path / 'c'), write_cityscapes(tmp_path / 'cityscapes')
    change(root, root / 'gaussian_noise-1/leftImg8bit/val/munster/munster_000000_000019_leftImg8bit.png')
    with pytest.raises(UserError, match=message):
        prepare_cityscapes_c(root, source)
