"""Mistakes in data: one sentence on stderr, exit status 2, nothing written."""

import sys

import cv2
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
    sentence = refused(attack_tool, attacked(), project, capsys, done=2)
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
    sentence = refused(attack_tool, attacked(), project, capsys, done=2)
    assert '2.png' in sentence and '20x32' in sentence and '32x32' in sentence


def test_labels_that_are_missing(attack_tool, project, capsys):
    configure(project, "test_dataloader['dataset']['pipeline'] = [pipeline[0], pipeline[2]]\n")
    assert 'LoadAnnotations' in refused(attack_tool, attacked(), project, capsys)


@pytest.mark.parametrize(
    ('file', 'content', 'message', 'workers', 'done'),
    [
        ('images/2.png', b'', 'is empty', 1, None),  # known before the first attack
        ('images/2.png', None, 'does not exist', 0, None),
        ('images/2.png', 'half', 'is not a readable image', 0, None),
        ('labels/2.png', b'P5 no image', 'is not a readable image', 1, None),
        ('labels/2.png', None, 'does not exist', 1, None),
    ],
)
def test_unreadable_files(attack_tool, project, capsys, file, content, message, workers, done):
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
        attack_tool, attacked('--cfg-options', f'test_dataloader.num_workers={workers}'), project, capsys, done=done
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


UNCHANGED = "test_dataloader['dataset']['pipeline'][0].update(color_type='unchanged', imdecode_backend='cv2')\n"
ADVERSARIAL = (
    "model['data_preprocessor'].update(type='AdvSegDataPreProcessor', "
    "attack=dict(type='PGD', threat=dict(type='Linf', radius='4/255'), steps=1))\n"
)


def rewrite(folder, change):
    for path in folder.glob('*.png'):
        cv2.imwrite(str(path), change(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)))


def failed_in_training(train_tool, capsys):
    """Trains, and returns the sentence that ends it; logs may have been written."""
    capsys.readouterr()
    assert train_tool(['config.py', '--work-dir', 'work']) == 2
    errors = capsys.readouterr().err
    assert 'Traceback' not in errors
    return errors.splitlines()[-1]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda image: image.astype(np.uint16) * 256, 'convert the uint16 image to 8 bits'),
        (lambda image: np.concatenate([image, image[..., :1]], -1), 'the image has 4 channels, and the data_preproc'),
    ],
    ids=['16 bits', 'alpha channel'],
)
def test_images_of_other_kinds(attack_tool, train_tool, project, capsys, change, message):
    rewrite(project / 'data/images', change)
    configure(project, UNCHANGED)
    sentence = refused(attack_tool, attacked(), project, capsys)
    assert 'images/0.png' in sentence and message in sentence
    configure(project, UNCHANGED + ADVERSARIAL)
    sentence = failed_in_training(train_tool, capsys)
    assert 'data/images/' in sentence and message in sentence


def test_clean_training_names_an_image_of_other_channels(train_tool, project, capsys):
    rewrite(project / 'data/images', lambda image: np.concatenate([image, image[..., :1]], -1))
    configure(project, UNCHANGED)
    assert 'the image has 4 channels' in failed_in_training(train_tool, capsys)


def test_16_bits_with_the_values_of_8_are_taken(attack_tool, project, capsys):
    assert attack_tool(attacked()) == 0
    expected = (project / 'out/per_image.csv').read_text()
    rewrite(project / 'data/images', lambda image: image.astype(np.uint16))
    rewrite(project / 'data/labels', lambda label: label.astype(np.uint16))
    configure(project, UNCHANGED)
    assert attack_tool(attacked('--restart')) == 0
    assert (project / 'out/per_image.csv').read_text() == expected


@pytest.mark.parametrize('tool', ['test', 'train'])
def test_label_maps_of_16_bits(attack_tool, train_tool, project, capsys, tool):
    rewrite(project / 'data/labels', lambda label: np.where(label == 0, np.uint16(1024), label))
    if tool == 'test':
        sentence = refused(attack_tool, attacked(), project, capsys)
    else:
        sentence = failed_in_training(train_tool, capsys)
    assert 'has more than 8 bits and holds the value 1024, which LoadAnnotations would take for class 0' in sentence


def test_dataset_without_classes(attack_tool, train_tool, project, capsys):
    configure(project, 'metainfo.clear()\n')
    message = 'BaseSegDataset names no classes; set metainfo'
    assert f'test_dataloader.dataset: {message}' in refused(attack_tool, attacked(), project, capsys)
    argv = ['config.py', '--work-dir', 'work']
    assert f'val_dataloader.dataset: {message}' in refused(train_tool, argv, project, capsys)


TTA = """
steps = [[dict(type='RandomFlip', prob=p) for p in (0.0, 1.0)], [pipeline[1]], [pipeline[2]]]
test_dataloader = dict(test_dataloader)
test_dataloader['dataset'] = dict(dataset, pipeline=[pipeline[0], dict(type='TestTimeAug', transforms=steps)])
"""


def test_pipeline_of_several_versions(attack_tool, project, capsys):
    configure(project, TTA)
    assert 'the pipeline ends in TestTimeAug, which makes several' in refused(attack_tool, attacked(), project, capsys)


ONE_CLASS = """
metainfo.update(classes=('box',), palette=[[1, 2, 3]])
model['decode_head'].update(out_channels=1, num_classes=2, loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True))
"""


def test_one_class_and_two_that_are_named(attack_tool, project, capsys):
    """Mmseg's own score of one class counts every pixel that is right, background included, as the class's."""
    rewrite(project / 'data/labels', lambda label: np.where(label == 2, 1, label).astype(np.uint8))
    weights = load_checkpoint_file(project / 'trained.pth')['state_dict']
    for name in ('weight', 'bias'):
        weights[f'decode_head.conv_seg.{name}'] = weights[f'decode_head.conv_seg.{name}'][:1]
    torch.save({'state_dict': weights}, project / 'trained.pth')
    configure(project, ONE_CLASS)
    sentence = refused(attack_tool, attacked(), project, capsys)
    assert 'the dataset names 1 class, and the model tells 2 apart; name the background too' in sentence
    configure(project, ONE_CLASS + "metainfo.update(classes=('ground', 'box'), palette=[[0, 0, 0], [1, 2, 3]])\n")
    assert attack_tool(attacked()) == 0


def test_batch_of_one_image_before_a_batch_norm_of_one_value(train_tool, project, capsys):
    configure(
        project,
        "model['decode_head'].update(type='PSPHead', pool_scales=(1, 2))\n"
        "model['decode_head'].pop('num_convs')\ntrain_dataloader['batch_size'] = 1\n",
    )
    sentence = failed_in_training(train_tool, capsys)
    assert 'a batch norm gets one value for each channel (input size [1, 16, 1, 1])' in sentence
    assert 'batch_size of 2 or more' in sentence


def test_hooks_of_training(attack_tool, project, capsys):
    """EarlyStoppingHook is left out, as EMAHook is, whatever its type is written as; another one is named."""
    configure(project, "custom_hooks = [dict(type='mmengine.EarlyStoppingHook', monitor='mIoU')]\n")
    assert attack_tool(attacked()) == 0
    configure(project, "custom_hooks = [dict(type='ProfilerHook', by_epoch=True, profile_times=1)]\n")
    sentence = refused(attack_tool, attacked('--restart'), project, capsys)
    assert 'ProfilerHook of the config cannot begin a test, which has no train loop' in sentence


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
