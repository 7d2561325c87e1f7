"""Which samples are taken, what they are called, and errors that name a file."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import Config
from mmengine.dataset import ConcatDataset, RepeatDataset

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
    found = [selection[i]['data_samples'].metainfo for i in range(2)]
    assert [(meta['sample_idx'], meta['image_name']) for meta in found] == [(1, '1.png'), (8, '2.png')]


def test_named_errors_pass_other_errors_on(tiny):
    def broken(sample):
        raise ZeroDivisionError('a defect of the pipeline')

    with pytest.raises(ZeroDivisionError, match='a defect of the pipeline'):
        NamedErrors(broken)({'img_path': str(tiny / 'data/images/0.png')})
    with pytest.raises(UserError, match=r'label .*none.png does not exist; mend or remove it'):
        NamedErrors(broken)({'img_path': str(tiny / 'data/images/0.png'), 'seg_map_path': str(tiny / 'none.png')})
    assert NamedErrors(dict)({'a': 1}) == {'a': 1}
    assert pickle.loads(pickle.dumps(NamedErrors(dict)))({'a': 1}) == {'a': 1}
