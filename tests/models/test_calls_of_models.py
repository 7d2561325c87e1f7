"""The helpers of mmadv.models and the loading of checkpoints refuse every spoilt argument in one clear sentence."""

import pytest
import tiny_project
import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mutations import cases, check_refused, public_calls, rights

import mmadv.checkpoints as checkpoints
import mmadv.models
import mmadv.models.building as building
from mmadv.models import SegmentorAdapter, TrainingAdapter, geometry, sample_names, stack_images, stack_labels, unwrap


@pytest.fixture(scope='module')
def calls(tmp_path_factory):
    """Name -> a function that returns the callable and its right arguments."""
    root = tmp_path_factory.mktemp('calls')
    config = dict(Config.fromfile(tiny_project.write_config(root / 'config.py', root / 'data')).items())
    model = building.build_segmentor(config).eval()
    sample = SegDataSample(metainfo=dict(ori_shape=(32, 40), img_shape=(32, 40)))
    sample.set_data(dict(gt_sem_seg=PixelData(data=torch.zeros(1, 32, 40, dtype=torch.int64))))
    images = torch.rand(2, 3, 32, 40)
    bytes_ = [torch.zeros(3, 32, 40, dtype=torch.uint8)] * 2
    path = root / 'weights.pth'
    torch.save({'state_dict': model.state_dict()}, path)
    return {
        'unwrap': lambda: (unwrap, dict(model=model)),
        'geometry': lambda: (geometry, dict(data_sample=sample)),
        'sample_names': lambda: (sample_names, dict(data_samples=[sample])),
        'stack_images': lambda: (stack_images, dict(inputs=bytes_, data_samples=[sample] * 2)),
        'stack_labels': lambda: (stack_labels, dict(data_samples=[sample])),
        'SegmentorAdapter': lambda: (SegmentorAdapter, dict(model=model, data_samples=[sample], ignore_index=255)),
        'SegmentorAdapter.forward': lambda: (SegmentorAdapter(model, [sample]), dict(images=images)),
        'TrainingAdapter': lambda: (TrainingAdapter, dict(model=model, padded_size=(32, 40))),
        'TrainingAdapter.forward': lambda: (TrainingAdapter(model, (32, 40)), dict(images=images)),
        'build_segmentor': lambda: (building.build_segmentor, dict(config=config)),
        'model_settings': lambda: (building.model_settings, dict(config=config)),
        'file_sha256': lambda: (checkpoints.file_sha256, dict(path=path)),
        'load_checkpoint_file': lambda: (
            checkpoints.load_checkpoint_file,
            dict(path=path, map_location='cpu', mmap=False),
        ),
        'load_weights': lambda: (checkpoints.load_weights, dict(model=model, path=path)),
    }


PATHS = ('file_sha256.path', 'load_checkpoint_file.path', 'load_weights.path')
FORWARD = ('SegmentorAdapter.forward.images', 'TrainingAdapter.forward.images')
RIGHT = rights(
    ('any number of samples', '[]|one less|one more', 'sample_names.data_samples'),
    ('any number of samples', 'one more', 'stack_labels.data_samples', 'SegmentorAdapter.data_samples'),
    ("the sentence calls them 'samples'", '[]|one less', 'SegmentorAdapter.data_samples'),
    ('any label may be ignored', '-1|0', 'SegmentorAdapter.ignore_index'),
    ('images of any size and precision', 'smaller batch|narrower|lower|half', *FORWARD),
    ('attacks have checked it, and smoothing adds noise', 'with nan|with inf|in 0..255|negative', *FORWARD),
    ('another key of the config', 'value None|value text', 'build_segmentor.config', 'model_settings.config'),
    ("the sentence calls it 'the checkpoint', as commands do", "'no'|''", *PATHS),
    ('a right setting', '{}|None', 'load_checkpoint_file.map_location'),
    ('a right setting', 'True', 'load_checkpoint_file.mmap'),
)
HELPERS = ('unwrap', 'geometry', 'sample_names', 'stack_images', 'stack_labels', 'SegmentorAdapter', 'TrainingAdapter')


def test_spoilt_arguments_are_refused(calls):
    for name, argument in cases(calls):
        check_refused(calls, RIGHT, name, argument)


def test_every_call_is_tried(calls):
    """Components that configs build are tried in test_fields_of_mm_components.py; mmseg calls their methods."""
    exported = {name for name in mmadv.models.__all__ if MODELS.get(name) is None}
    assert exported == set(HELPERS)
    loading = {*public_calls(checkpoints), *public_calls(building)}
    assert {*exported, *loading} <= {*calls, 'use_safe_loading'}
