import numpy as np
import pytest
from miniature_trees import VOC_NAMES, halves, save_image, save_labels, sbd_struct, voc_labels, write_voc
from mmseg.datasets import PascalVOCDataset
from PIL import Image
from scipy.io import savemat

from mmadv.datasets.prepare import files, prepare_voc, voc
from mmadv.errors import UserError


@pytest.fixture
def devkit(tmp_path):
    return write_voc(tmp_path / 'VOCdevkit')


def names_of(devkit, name):
    return (devkit / 'VOC2012' / 'ImageSets' / 'Segmentation' / f'{name}.txt').read_text().split()


def labels_of(devkit, name):
    return devkit / 'VOC2012' / 'SegmentationClassAug' / f'{name}.png'


def test_label_maps_hold_the_classes_of_the_mat_files(devkit):
    prepare_voc(devkit)
    for number, name in enumerate(VOC_NAMES['sbd_train'] + VOC_NAMES['sbd_val']):
        with Image.open(labels_of(devkit, name)) as image:
            assert image.mode == 'P'
            assert image.getpalette()[3:6] == PascalVOCDataset.METAINFO['palette'][1]
            np.testing.assert_array_equal(np.array(image), halves(0, number + 1))


def test_lists_and_their_overlap(devkit):
    report = prepare_voc(devkit)
    assert names_of(devkit, 'sbd_train') == VOC_NAMES['sbd_train']
    assert names_of(devkit, 'sbd_train_noval') == ['2007_000032', '2008_000008']
    assert names_of(devkit, 'val_nosbd') == ['2007_000033', '2007_000061']
    assert names_of(devkit, 'aug') == ['2008_000008', '2008_000015']
    assert 'train.txt and aug.txt together: 4 images (10582 when complete)' in report
    assert report[-1].startswith('1 of the 3 images of sbd_train.txt are in the validation set (3 images)')


def test_counts(devkit):
    report = prepare_voc(devkit)
    border = 100 * (voc_labels() == 255).mean()
    assert report[0] == (
        'VOC train: 2 images with label maps (0 written, 2 there already), 2 of 21 classes occur, '
        f'{border:.2f} % void; the complete split has 1464'
    )
    assert report[2] == (
        'SBD train: 3 images with label maps (3 written, 0 there already), 4 of 21 classes occur, 0.00 % void; '
        'the complete split has 8498'
    )


def test_second_run_writes_nothing(devkit):
    prepare_voc(devkit)
    before = {path: path.stat().st_mtime_ns for path in devkit.rglob('*') if path.is_file()}
    report = prepare_voc(devkit)
    assert {path: path.stat().st_mtime_ns for path in devkit.rglob('*') if path.is_file()} == before
    assert '(0 written, 3 there already)' in report[2]
    assert 'sbd_train.txt: 3 images (there already)' in report


def test_resumes_after_an_interruption(devkit, monkeypatch):
    replaced = []

    def interrupted(source, target):
        if len(replaced) == 1:
            raise KeyboardInterrupt
        replaced.append(target)
        source.rename(target)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, 'replace', interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare_voc(devkit)
    done = sorted((devkit / 'VOC2012' / 'SegmentationClassAug').glob('*.png'))
    assert [path.stem for path in done] == VOC_NAMES['sbd_train'][:1]  # whole or not there at all
    before = done[0].stat().st_mtime_ns
    report = prepare_voc(devkit)
    assert '(2 written, 1 there already)' in report[2]
    assert done[0].stat().st_mtime_ns == before
    assert sorted(path.stem for path in (devkit / 'VOC2012' / 'SegmentationClassAug').iterdir()) == sorted(
        VOC_NAMES['sbd_train'] + VOC_NAMES['sbd_val']
    )


def test_a_file_of_another_tool_is_kept(devkit):
    mine = halves(5, 6)
    save_labels(labels_of(devkit, '2008_000008'), mine)
    prepare_voc(devkit)
    np.testing.assert_array_equal(np.array(Image.open(labels_of(devkit, '2008_000008'))), mine)


def test_a_list_with_other_names_is_told(devkit):
    path = devkit / 'VOC2012' / 'ImageSets' / 'Segmentation' / 'aug.txt'
    path.write_text('2010_000001\n')
    with pytest.raises(UserError, match=r"the list '.*aug.txt' is there with other names"):
        prepare_voc(devkit)
    assert path.read_text() == '2010_000001\n'


def test_sbd_is_found_beside_the_devkit_or_where_told(devkit, tmp_path):
    sbd = devkit / 'VOCaug' / 'dataset'
    with pytest.raises(UserError, match=r"no SBD in '.*VOCdevkit' .* as the source"):
        sbd.rename(tmp_path / 'elsewhere')
        prepare_voc(devkit)
    assert voc.find_sbd(devkit, tmp_path / 'elsewhere') == tmp_path / 'elsewhere'
    (tmp_path / 'benchmark_RELEASE').mkdir()
    (tmp_path / 'elsewhere').rename(tmp_path / 'benchmark_RELEASE' / 'dataset')
    assert voc.find_sbd(devkit, None).resolve() == (tmp_path / 'benchmark_RELEASE' / 'dataset').resolve()


@pytest.mark.parametrize(
    ('damage', 'sentence'),
    [
        (
            lambda root: (root / 'VOCaug/dataset/cls/2008_000008.mat').unlink(),
            r"image '.*2008_000008.jpg' has no label map; expected it at '.*2008_000008.mat'",
        ),
        (
            lambda root: (root / 'VOC2012/JPEGImages/2008_000015.jpg').unlink(),
            r"image '.*2008_000015.jpg' does not exist",
        ),
        (
            lambda root: (root / 'VOC2012/SegmentationClass/2007_000033.png').unlink(),
            r"image '.*2007_000033.jpg' has no label map; expected it at '.*SegmentationClass/2007_000033.png'",
        ),
        (
            lambda root: (root / 'VOCaug/dataset/cls/2008_000008.mat').write_bytes(b'MATLAB 5.0'),
            r"'.*2008_000008.mat' is not a label map of SBD",
        ),
        (
            lambda root: savemat(root / 'VOCaug/dataset/cls/2008_000008.mat', sbd_struct(halves(0, 21))),
            r"'.*2008_000008.mat' holds the value 21; valid are 0 to 20 and 255",
        ),
        (
            lambda root: savemat(root / 'VOCaug/dataset/cls/2008_000008.mat', sbd_struct(halves(0, 1, (24, 30)))),
            r"'.*2008_000008.mat' is 30x24 and its image 36x24",
        ),
        (
            lambda root: (root / 'VOC2012/SegmentationClass/2007_000033.png').write_bytes(b'\x89PNG\r\n\x1a\n'),
            r"label map '.*2007_000033.png' is not a readable image",
        ),
        (
            lambda root: save_image(root / 'VOC2012/SegmentationClass/2007_000033.png'),
            r"label map '.*2007_000033.png' must have one channel of 8 bits, found mode RGB",
        ),
        (
            lambda root: (root / 'VOCaug/dataset/train.txt').unlink(),
            r"the list '.*VOCaug/dataset/train.txt' does not exist",
        ),
        (
            lambda root: (root / 'VOC2012/ImageSets/Segmentation/val.txt').write_text('\n'),
            r"the list '.*val.txt' is empty",
        ),
        (
            lambda root: (root / 'VOC2012/JPEGImages').rename(root / 'VOC2012/images'),
            r"'.*VOCdevkit' holds no VOC2012/JPEGImages",
        ),
    ],
)
def test_damage_is_told(devkit, damage, sentence):
    damage(devkit)
    with pytest.raises(UserError, match=sentence):
        prepare_voc(devkit)
