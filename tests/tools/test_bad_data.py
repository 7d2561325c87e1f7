"""Mistakes in data: one sentence on stderr, exit status 2, nothing written."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import attacked, configure, refused

from mmadv.checkpoints import load_checkpoint_file


def test_labels_outside_the_classes(attack_tool, train_tool, project, capsys):
    label = np.array(Image.open(project / 'data/labels/2.png'))
    label[5, 5] = 17
    Image.fromarray(label).save(project / 'data/labels/2.png')
    sentence = refused(attack_tool, attacked(), project, capsys, kept=2)
    assert '2.png' in sentence and 'found 17' in sentence


def test_labels_outside_the_classes_in_training(train_tool, project, capsys):
    for path in (project / 'data/labels').glob('*.png'):
        label = np.array(Image.open(path))
        label[5, 5] = 17
        Image.fromarray(label).save(path)
    capsys.readouterr()
    assert train_tool(['config.py', '--work-dir', 'work']) == 2
    assert 'a training label holds the value 17' in capsys.readouterr().err


def test_label_and_image_sizes_differ(attack_tool, project, capsys):
    Image.fromarray(np.zeros((20, 32), np.uint8)).save(project / 'data/labels/2.png')
    sentence = refused(attack_tool, attacked(), project, capsys, kept=2)
    assert '2.png' in sentence and '20x32' in sentence and '32x32' in sentence


def test_labels_that_are_missing(attack_tool, project, capsys):
    configure(project, "test_dataloader['dataset']['pipeline'] = [pipeline[0], pipeline[2]]\n")
    assert 'LoadAnnotations' in refused(attack_tool, attacked(), project, capsys)


@pytest.mark.parametrize(
    ('file', 'content', 'message', 'workers'),
    [
        ('images/2.png', b'', 'is not a readable image', 1),
        ('images/2.png', None, 'does not exist', 0),
        ('images/2.png', 'half', 'is not a readable image', 0),
        ('labels/2.png', b'P5 no image', 'is not a readable image', 0),
        ('labels/2.png', None, 'does not exist', 1),
    ],
)
def test_unreadable_files(attack_tool, project, capsys, file, content, message, workers):
    path = project / 'data' / file
    data = path.read_bytes()
    config = project / 'config.py'
    if content is None:
        (project / 'list.txt').write_text('\n'.join('012345'))
        configure(project, f"test_dataloader['dataset'].update(ann_file={str(project / 'list.txt')!r})\n")
        path.unlink()
    else:
        path.write_bytes(data[: len(data) // 2] if content == 'half' else content)
    assert config.exists()
    sentence = refused(
        attack_tool, attacked('--cfg-options', f'test_dataloader.num_workers={workers}'), project, capsys, kept=2
    )
    assert str(path) in sentence and message in sentence


def test_unreadable_training_image(train_tool, project, capsys):
    (project / 'data/images/2.png').write_bytes(b'')
    capsys.readouterr()
    assert train_tool(['config.py', '--work-dir', 'work']) == 2
    errors = capsys.readouterr().err
    assert f'error: image {project}/data/images/2.png is not a readable image' in errors


@pytest.mark.parametrize('tool', ['test', 'train'])
@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['dataset.data_root=no_data'], 'dataset folder no_data does not exist'),
        (['dataset.data_prefix.img_path=elsewhere'], 'elsewhere does not exist'),
        (['dataset.data_prefix.img_path=empty'], 'empty is empty'),
        (['dataset.img_suffix=.tif'], "holds no '*.tif' images"),
        (['dataset.ann_file=no_list.txt'], 'no_list.txt does not exist'),
        (['dataset.type=NoDataset'], 'NoDataset'),
    ],
)
def test_datasets(attack_tool, train_tool, project, capsys, options, message, tool):
    (project / 'data' / 'empty').mkdir()
    options = ['--cfg-options', *(f'{tool}_dataloader.{option}' for option in options)]
    if tool == 'test':
        sentence = refused(attack_tool, attacked(*options), project, capsys)
    else:
        sentence = refused(train_tool, ['config.py', '--work-dir', 'work', *options], project, capsys)
    assert message in sentence
    assert f'{tool}_dataloader.dataset' in sentence


def test_images_outside_0_255(attack_tool, project, capsys):
    steps = {
        'Normalize': "dict(type='mmcv.Normalize', mean=[127.5] * 3, std=[60.0] * 3)",
        'scaled': "dict(type='mmcv.Normalize', mean=[0.0] * 3, std=[255.0] * 3)",
    }
    for step in steps.values():
        configure(project, f"test_dataloader['dataset']['pipeline'] = [pipeline[0], {step}, *pipeline[1:]]\n")
        sentence = refused(attack_tool, attacked(), project, capsys)
        assert '0.png' in sentence and 'pixels must be in [0, 255]; found values from' in sentence


def test_nan_logits(attack_tool, project, capsys):
    checkpoint = load_checkpoint_file(project / 'trained.pth')
    checkpoint['state_dict']['decode_head.conv_seg.bias'][0] = float('nan')
    torch.save({'state_dict': checkpoint['state_dict']}, project / 'trained.pth')
    sentence = refused(attack_tool, attacked(), project, capsys)
    assert 'NaN or infinite logits for the clean image 0.png (iteration 0)' in sentence


def test_data_preprocessor_that_cannot_be_replaced(attack_tool, project, capsys):
    (project / 'own_preprocessor.py').write_text(
        'from mmseg.models import SegDataPreProcessor\n'
        'from mmseg.registry import MODELS\n'
        '@MODELS.register_module(force=True)\n'
        'class OwnPreProcessor(SegDataPreProcessor):\n'
        '    def forward(self, data, training=False):\n'
        '        return super().forward(data, training)\n'
    )
    configure(
        project,
        "custom_imports = dict(imports=['mmadv', 'own_preprocessor'])\n"
        "model['data_preprocessor']['type'] = 'OwnPreProcessor'\n",
    )
    sys.path.insert(0, str(project))
    try:
        sentence = refused(attack_tool, attacked(), project, capsys)
    finally:
        sys.path.remove(str(project))
        sys.modules.pop('own_preprocessor', None)
    assert 'OwnPreProcessor, which mmadv cannot replace' in sentence


def test_training_image_without_its_label_map(train_tool, project, capsys):
    (project / 'data/labels/2.png').unlink()
    capsys.readouterr()
    assert train_tool(['config.py', '--work-dir', 'work']) == 2
    assert f'error: label {project}/data/labels/2.png does not exist' in capsys.readouterr().err
