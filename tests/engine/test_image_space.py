"""Attacks on the pixels of the file, through the resizing of the pipeline."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from tiny_project import runner_for_test, write_config

from mmadv.engine.data import build_dataset
from mmadv.engine.image_space import attack_image_files
from mmadv.errors import UserError
from mmadv.models.adapter import SegmentorAdapter

PGD = {'type': 'PGD', 'threat': {'type': 'Linf', 'radius': '16/255'}, 'steps': 3, 'keep': 'lowest_accuracy'}
RESIZED = "test_dataloader['dataset']['pipeline'] = [pipeline[0], dict(type='Resize', scale=(28, 24), keep_ratio=False)"


@pytest.fixture
def resizing(tiny, tmp_path):
    (tmp_path / 'trained.pth').symlink_to(tiny / 'trained.pth')
    return write_config(tmp_path / 'config.py', tiny / 'data', f'{RESIZED}, *pipeline[1:]]\n')


def test_the_file_is_attacked_and_its_resized_image_is_scored(tiny, resizing, tmp_path):
    loop = {'type': 'AttackTestLoop', 'attack': PGD, 'show': 3, 'limit': 3, 'space': 'image'}
    runner = runner_for_test(resizing, tmp_path / '1', loop)
    runner.test()
    evaluation = runner.test_loop.evaluator.metrics[0].evaluation
    assert evaluation.attacked['16/255'].worst_case['aAcc'] < evaluation.clean['aAcc']
    for example in runner.test_loop.examples:
        file = np.array(Image.open(tiny / 'data/images' / example.name)).astype(np.float32) / 255
        assert np.array_equal(example.image, file)
        adversarial = example.adversarial['16/255']
        change = np.abs(adversarial - file)
        assert change.max() <= 16 / 255 + 1e-6 and change.max() > 15 / 255
        # The prediction is that of the network on the adversarial file, resized by another library.
        for pixels, prediction in ((file, example.clean), (adversarial, example.attacked['16/255'])):
            small = cv2.resize(pixels, (28, 24), interpolation=cv2.INTER_LINEAR)[:, :, ::-1]
            inputs = torch.from_numpy(small.copy()).permute(2, 0, 1)[None]
            sample = runner.test_loop.dataloader.dataset[0]['data_samples']
            sample.set_metainfo({'ori_shape': example.label.shape, 'img_shape': (24, 28), 'network_size': None})
            with torch.no_grad():
                logits = SegmentorAdapter(runner.model, [sample])(inputs)
            assert (logits.argmax(1)[0].numpy() == prediction).mean() > 0.995


def test_both_spaces_agree_on_clean_images_up_to_rounding(resizing, tmp_path):
    accuracy = {}
    for space in ('input', 'image'):
        runner = runner_for_test(resizing, tmp_path / space, {'type': 'AttackTestLoop', 'space': space})
        accuracy[space] = runner.test()['attack/clean/aAcc']
    assert accuracy['image'] == pytest.approx(accuracy['input'], abs=0.01)


@pytest.mark.parametrize(
    ('pipeline', 'message'),
    [
        (
            f"{RESIZED}, dict(type='PhotoMetricDistortion'), *pipeline[1:]]",
            'through the step PhotoMetricDistortion',
        ),
        (f"{RESIZED}, dict(type='Resize', scale=(9, 9)), *pipeline[1:]]", 'takes one Resize step'),
        (RESIZED.replace('keep_ratio=False', "interpolation='nearest'") + ', *pipeline[1:]]', 'needs bilinear'),
    ],
)
def test_refused_pipelines(tiny, tmp_path, pipeline, message):
    config = Config.fromfile(str(write_config(tmp_path / 'config.py', tiny / 'data', pipeline + '\n')))
    with pytest.raises(UserError, match=message):
        attack_image_files(build_dataset(config.test_dataloader.dataset, 'here'))


def test_labels_must_come_after_the_resizing(tiny, tmp_path):
    swapped = (
        "test_dataloader['dataset']['pipeline'] = [*pipeline[:2], dict(type='Resize', scale=(9, 9)), pipeline[2]]\n"
    )
    config = Config.fromfile(str(write_config(tmp_path / 'config.py', tiny / 'data', swapped)))
    dataset = build_dataset(config.test_dataloader.dataset, 'here')
    attack_image_files(dataset)
    with pytest.raises(UserError, match='load the annotations after the Resize step'):
        dataset[0]
