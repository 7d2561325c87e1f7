"""Which samples are taken, what they are called, and errors that name a file."""

import pickle

import numpy as np
import pytest
import tiny_project
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import Config
from mmengine.dataset import ConcatDataset, RepeatDataset
from PIL import Image

from mmadv.engine.data import NamedErrors, Selection, build_dataset, evenly_spaced, leaves
from mmadv.errors import UserError


@given(st.integers(1, 300), st.integers(1, 300))
def test_evenly_spaced_indexes(size, limit):
    indexes = evenly_spaced(size, limit)
    assert len(indexes) == len(set(indexes)) == min(size, limit)
    assert indexes == sorted(indexes) and indexes[0] == 0 and indexes[-1] < size
    gaps = np.diff(indexes)
    assert not len(gaps) or gaps.max() - gaps.min() <= 1


def test_samples_carry_index_and_name(tiny):
    dataset = build_dataset(Config.fromfile(str(tiny / 'config.py')).dataset, 'here')
    assert list(leaves(RepeatDataset(dataset, 2))) == [dataset]
    both = ConcatDataset([dataset, dataset])
    assert list(leaves(both)) == [dataset, dataset]
    selection = Selection(both, [1, 8])
    assert len(selection) == 2
    assert selection.metainfo['classes'] == ('ground', 'box', 'disc')
    actual = [selection[i]['data_samples'].metainfo for i in range(2)]
    assert [(meta['sample_idx'], meta['image_name']) for meta in actual] == [(1, '1.png'), (8, '2.png')]


def test_named_errors_pass_other_errors_on(tiny):
    def broken(sample):
        raise ZeroDivisionError('a defect of the pipeline')

    with pytest.raises(ZeroDivisionError, match='a defect of the pipeline'):
        NamedErrors(broken)({'img_path': str(tiny / 'data/images/0.png')})
    with pytest.raises(UserError, match=r'label .*none.png does not exist; repair it, or remove it from the dataset'):
        NamedErrors(broken)({'img_path': str(tiny / 'data/images/0.png'), 'seg_map_path': str(tiny / 'none.png')})
    assert NamedErrors(dict)({'a': 1}) == {'a': 1}
    assert pickle.loads(pickle.dumps(NamedErrors(dict)))({'a': 1}) == {'a': 1}


def test_images_of_one_name_in_several_folders_have_names_of_their_own(tmp_path):
    parts = []
    for folder in ('day', 'night'):
        tiny_project.write_dataset(tmp_path / folder, images=2)
        config = tiny_project.write_config(tmp_path / f'{folder}.py', tmp_path / folder)
        parts.append(build_dataset(Config.fromfile(str(config)).dataset, 'here'))
    (tmp_path / 'night/images/1.png').rename(tmp_path / 'night/images/7.png')
    (tmp_path / 'night/labels/1.png').rename(tmp_path / 'night/labels/7.png')
    parts[1] = build_dataset(Config.fromfile(str(config)).dataset, 'here')
    both = ConcatDataset(parts)
    selection = Selection(both, range(4))
    assert selection.names == {'day/images/0.png': 0, '1.png': 1, 'night/images/0.png': 2, '7.png': 3}
    assert [selection[i]['data_samples'].metainfo['image_name'] for i in range(4)] == list(selection.names)
    assert len({selection.digest(index) for index in range(4)}) == 4
    assert Selection(both, [2]).names == {'night/images/0.png': 2}  # a name does not depend on what else is chosen


def test_missing_and_empty_files_are_known_before_any_is_read(tmp_path):
    tiny_project.write_dataset(tmp_path / 'data', images=3)
    config = tiny_project.write_config(tmp_path / 'config.py', tmp_path / 'data')
    selection = Selection(build_dataset(Config.fromfile(str(config)).dataset, 'here'), range(3))
    selection.check_files()
    (tmp_path / 'data/labels/2.png').unlink()
    with pytest.raises(
        UserError, match=r'label .*labels/2.png does not exist; repair it, or remove it from the dataset'
    ):
        selection.check_files()
    (tmp_path / 'data/images/1.png').write_bytes(b'')
    with pytest.raises(UserError, match=r'image .*images/1.png is empty; repair it'):
        selection.check_files()


class FilesAlone:
    """A dataset of image files."""

    metainfo = {}

    def __init__(self, *paths):
        self.paths = [str(path) for path in paths]

    def __len__(self):
        return len(self.paths)

    def get_data_info(self, index):
        return {'img_path': self.paths[index]}


@pytest.mark.parametrize('suffix', ['png', 'jpg', 'bmp', 'tif'])
def test_files_that_are_cut_short_are_known_before_any_is_read(tmp_path, suffix):
    """OpenCV reads half a JPEG as a whole one, grey below."""
    whole, half = tmp_path / f'whole.{suffix}', tmp_path / f'half.{suffix}'
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(whole)
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    Selection(FilesAlone(whole), [0]).check_files()
    with pytest.raises(
        UserError, match=rf'image {half} is not a readable image, or is cut short \(.+\); repair it, or'
    ):
        Selection(FilesAlone(whole, half), [0, 1]).check_files()


def test_files_of_other_formats_are_left_to_their_loader(tmp_path):
    (tmp_path / 'x.npy').write_bytes(b'no picture')
    (tmp_path / 'x.png').write_bytes(b'no picture')
    Selection(FilesAlone(tmp_path / 'x.npy'), [0]).check_files()
    with pytest.raises(UserError, match=r'x.png is not a readable image'):
        Selection(FilesAlone(tmp_path / 'x.png'), [0]).check_files()


def test_names_that_are_no_longer_in_the_data(tmp_path):
    selection = Selection(FilesAlone(*(tmp_path / f'{n}.png' for n in range(4))), [1, 3])
    assert selection.name(2) == '2.png'
    assert selection.removed(['1.png', '2.png', '9.png', '7.png']) == ['7.png', '9.png']
