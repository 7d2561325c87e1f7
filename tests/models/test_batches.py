import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmadv.engine.attacked_batches import groups_of_one_geometry
from mmadv.errors import UserError
from mmadv.models.batches import check_not_scaled


def test_scaled_images_are_refused():
    for fine in (torch.ones(3, 2, 2, dtype=torch.uint8), torch.ones(3, 2, 2), torch.full((3, 2, 2), 7.5)):
        check_not_scaled([fine], ['x.png'])
    with pytest.raises(UserError, match=r'y.png: pixels must be in \[0, 255\]; found values from 0.5 to 0.5'):
        check_not_scaled([torch.full((3, 2, 2), 7.5), torch.full((3, 2, 2), 0.5)], ['x.png', 'y.png'])


def test_batches_that_loops_and_hooks_attack_are_checked():
    sample = SegDataSample(metainfo={'img_path': 'x.png', 'ori_shape': (2, 2)})
    sample.gt_sem_seg = PixelData(data=torch.zeros(1, 2, 2, dtype=torch.int64))
    assert groups_of_one_geometry([torch.full((3, 2, 2), 7.5)], [sample]) == [[0]]
    with pytest.raises(UserError, match=r'x.png: pixels must be in \[0, 255\]'):
        groups_of_one_geometry([torch.full((3, 2, 2), 0.5)], [sample])
