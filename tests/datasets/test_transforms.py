import numpy as np
import pytest

from mmadv.datasets import ScoreAtInputSize


def test_scoring_size_becomes_the_images():
    results = dict(img=np.zeros((12, 16, 3)), gt_seg_map=np.zeros((12, 16)), ori_shape=(36, 48))
    assert ScoreAtInputSize()(results)['ori_shape'] == (12, 16)


def test_unresized_label_map_is_refused():
    results = dict(img=np.zeros((12, 16, 3)), gt_seg_map=np.zeros((36, 48)), ori_shape=(36, 48))
    with pytest.raises(ValueError, match=r'\(36, 48\): load annotations before Resize'):
        ScoreAtInputSize()(results)
