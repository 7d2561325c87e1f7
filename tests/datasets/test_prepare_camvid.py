from pathlib import Path

import numpy as np
import pytest
from miniature_trees import save_image, save_labels, write_original_camvid, write_segnet_camvid
from PIL import Image

from mmadv.datasets import CamVidDataset
from mmadv.datasets.prepare import prepare_camvid
from mmadv.datasets.prepare.camvid import COLOURS, VOID_COLOUR, segnet_split
from mmadv.errors import UserError

PREFIX = dict(img_path='images/val', seg_map_path='annotations/val')


def labels_of(root, split, name):
    return np.array(Image.open(root / 'annotations' / split / f'{name}.png'))


def test_segnets_labels(tmp_path):
    report = prepare_camvid(write_segnet_camvid(tmp_path))
    expected = [value for value in (*range(11), 255) for _ in range(2)]
    for split, name in (('train', '0016E5_00390'), ('val', '0016E5_07959'), ('test', 'Seq05VD_f00000')):
        assert labels_of(tmp_path, split, name).tolist() == [expected] * 3
        image = tmp_path / 'images' / split / f'{name}.png'
        assert image.read_bytes() == (tmp_path / split / f'{name}.png').read_bytes()
    assert report[0] == (
        f'train: 2 images with label maps (2 written, 0 there already), 11 of 11 classes occur, {100 / 12:.2f} % void; '
        'the complete split has 367'
    )
    assert report[-1].startswith('the images are .png; set train_dataloader.dataset.img_suffix=.png')
    dataset = CamVidDataset(data_root=str(tmp_path), data_prefix=PREFIX, img_suffix='.png')
    assert [Path(item['img_path']).name for item in dataset.load_data_list()] == ['0016E5_07959.png']


def test_original_colours(tmp_path):
    members = [(name, colour) for name, group in COLOURS.items() for colour in group.values()]
    assert len({*(colour for _, colour in members), VOID_COLOUR}) == 32
    classes = CamVidDataset.METAINFO['classes']
    source = write_original_camvid(tmp_path / 'download', [colour for _, colour in members] + [VOID_COLOUR])
    report = prepare_camvid(tmp_path / 'camvid', source)
    expected = [classes.index(name) for name, _ in members] + [255]
    for split, name in (('train', '0001TP_006690'), ('val', '0016E5_08159'), ('test', 'Seq05VD_f02610')):
        assert labels_of(tmp_path / 'camvid', split, name).tolist() == [expected] * 2
    assert len(report) == 4
    # Three of the colours, from the palette of the 11 classes.
    for name in ('sky', 'road', 'bicyclist'):
        assert CamVidDataset.METAINFO['palette'][classes.index(name)] in [list(c) for c in COLOURS[name].values()]


def test_stray_pixels_are_void_and_counted(tmp_path):
    source = write_original_camvid(tmp_path / 'download', [(128, 128, 128)] * 199 + [(1, 2, 3)], ['0001TP_006690'])
    report = prepare_camvid(tmp_path / 'camvid', source)
    assert labels_of(tmp_path / 'camvid', 'train', '0001TP_006690')[0].tolist() == [0] * 199 + [255]
    assert '2 pixels of 1 files have no colour of CamVid and are void' in report


def test_another_colouring_is_told(tmp_path):
    source = write_original_camvid(tmp_path / 'download', [(128, 128, 128), (1, 2, 3)], ['0001TP_006690'])
    with pytest.raises(UserError, match=r'0001TP_006690_L.png. holds the colour \(1, 2, 3\)'):
        prepare_camvid(tmp_path / 'camvid', source)


@pytest.mark.parametrize(
    ('name', 'split'),
    [
        ('0001TP_008520', 'train'), ('0001TP_008550', 'test'), ('0006R0_f03930', 'train'), ('Seq05VD_f00000', 'test'),
        ('0016E5_07920', 'train'), ('0016E5_07959', 'val'), ('0016E5_08159', 'val'), ('0016E5_08190', 'train'),
    ],
)  # fmt: skip
def test_split_of_segnet(name, split):
    assert segnet_split(Path(f'{name}.png')) == split


def test_foreign_frame_is_told(tmp_path):
    with pytest.raises(UserError, match=r'drive_7.png. is not a frame of CamVid'):
        segnet_split(Path('drive_7.png'))


def write_layout(root):
    for split in ('train', 'val'):
        save_image(root / 'images' / split / 'a.jpg', (4, 6))
        save_labels(root / 'annotations' / split / 'a.png', np.full((4, 6), 10, np.uint8))
    return root


def test_the_layout_of_the_configs_is_checked_only(tmp_path):
    write_layout(tmp_path)
    before = sorted(tmp_path.rglob('*'))
    assert prepare_camvid(tmp_path) == [
        f'{split}: 1 images with label maps (0 written, 1 there already), 1 of 11 classes occur, 0.00 % void; '
        f'the complete split has {size}'
        for split, size in (('train', 367), ('val', 101))
    ]
    assert sorted(tmp_path.rglob('*')) == before


def test_unmapped_void_is_told(tmp_path):
    save_labels(write_layout(tmp_path) / 'annotations' / 'val' / 'a.png', np.full((4, 6), 11, np.uint8))
    with pytest.raises(UserError, match=r"val/a.png' holds the value 11; valid are 0 to 10 and 255"):
        prepare_camvid(tmp_path)


def test_missing_label_map_is_told(tmp_path):
    (write_segnet_camvid(tmp_path) / 'trainannot' / '0016E5_00390.png').unlink()
    with pytest.raises(UserError, match=r"images/train/0016E5_00390.png' has no label map; .*trainannot/0016E5_00390"):
        prepare_camvid(tmp_path)


def test_second_run_writes_nothing(tmp_path):
    prepare_camvid(write_segnet_camvid(tmp_path))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*') if path.is_file()}
    assert '(0 written, 2 there already)' in prepare_camvid(tmp_path)[0]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*') if path.is_file()} == before


def test_the_same_frame_in_another_format_is_told(tmp_path):
    save_image(write_segnet_camvid(tmp_path) / 'images' / 'train' / '0016E5_00390.jpg', (3, 24))
    with pytest.raises(UserError, match=r'0016E5_00390.jpg. is there already'):
        prepare_camvid(tmp_path)


def test_no_form_of_camvid_is_told(tmp_path):
    with pytest.raises(UserError, match=r'holds no CamVid: neither images/train'):
        prepare_camvid(tmp_path)
