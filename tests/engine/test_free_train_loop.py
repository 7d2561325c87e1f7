"""FreeTrainLoop's order of batches. (tests/models/test_training.py resumes it.)."""

import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from tiny_project import write_config, write_dataset

from mmadv.engine.free_train_loop import Replayed
from mmadv.errors import UserError


class Counted:
    """Batches [0], [1], ... ."""

    def __init__(self):
        self.next = 0

    def __next__(self):
        self.next += 1
        return [self.next - 1]

    def skip_iter(self, number):
        self.next += number


def taken(batches, number):
    return [(next(batches)[0], batches.slot) for _ in range(number)]


def test_every_group_of_batches_is_replayed():
    assert taken(Replayed(Counted(), 3), 7) == [(0, 0)] * 3 + [(1, 0)] * 3 + [(2, 0)]
    assert taken(Replayed(Counted(), 2, group=2), 6) == [(0, 0), (1, 1), (0, 0), (1, 1), (2, 0), (3, 1)]


@pytest.mark.parametrize(('replays', 'group'), [(1, 1), (3, 1), (2, 2), (3, 2)])
def test_skipping_is_taking(replays, group):
    expected = taken(Replayed(Counted(), replays, group), 20)
    for start in range(13):
        batches = Replayed(Counted(), replays, group)
        batches.skip_iter(start)
        assert taken(batches, 20 - start) == expected[start:]


def test_what_is_given_out_is_a_copy():
    batches = Replayed(Counted(), 2)
    next(batches).append('written by the training step')
    assert next(batches) == [0]


def test_refuses_replays_and_preprocessors_that_make_no_sense(tmp_path):
    write_dataset(tmp_path / 'data', images=3)
    config = Config.fromfile(str(write_config(tmp_path / 'config.py', tmp_path / 'data')))
    config.work_dir, config.log_level = str(tmp_path / 'work'), 'ERROR'
    config.train_cfg = dict(type='FreeTrainLoop', max_iters=2, replays=0)
    with pytest.raises(UserError, match='replays must be an integer at least 1; found 0'):
        Runner.from_cfg(config).train()
    config.train_cfg.replays = 2
    with pytest.raises(UserError, match='needs a data_preprocessor of type FreeAdvSegDataPreProcessor; found SegData'):
        Runner.from_cfg(config).train()
