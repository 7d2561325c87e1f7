"""The one way from a config to a segmentor: which data preprocessor counts, in every style of config."""

import copy
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub

from mmadv.errors import UserError
from mmadv.models import AdvSegDataPreProcessor
from mmadv.models.building import build_segmentor, model_settings

ROOT = Path(__file__).parents[2]
README = (ROOT / 'README.md').read_text(encoding='utf-8')
(THREE_LINES,) = re.findall(r'```python config\n(.*?)```', README, re.DOTALL)
SETTINGS = dict(
    type='SegDataPreProcessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_val=3,
    seg_pad_val=255,
    size=(32, 40),
    test_cfg=dict(size_divisor=8),
)
NORM = dict(type='BN')
NETWORK = dict(
    type='EncoderDecoder',
    backbone=dict(
        type='ResNet',
        depth=18,
        base_channels=8,
        stem_channels=8,
        num_stages=1,
        out_indices=(0,),
        strides=(1,),
        dilations=(1,),
        norm_cfg=NORM,
    ),
    decode_head=dict(
        type='FCNHead',
        in_channels=8,
        in_index=0,
        channels=8,
        num_convs=1,
        num_classes=5,
        norm_cfg=NORM,
        loss_decode=dict(type='CrossEntropyLoss'),
    ),
)
MODEL = f'model = dict({NETWORK!r}, test_cfg=dict(mode="whole"), train_cfg=dict())\n'
TOP = f'data_preprocessor = dict({SETTINGS!r})\n'
STYLES = {
    'at the top level': TOP + MODEL,
    'under model': MODEL + f'model["data_preprocessor"] = dict({SETTINGS!r})\n',
    'by a variable': TOP + MODEL + 'model["data_preprocessor"] = data_preprocessor\n',
    'by a variable of another name': f'preprocessor = dict({SETTINGS!r})\n'
    + MODEL
    + 'model["data_preprocessor"] = preprocessor\n',
    'with a scope': TOP.replace("'SegDataPreProcessor'", "'mmseg.SegDataPreProcessor'") + MODEL,
}


def write(folder, text, name='my_config.py'):
    (folder / name).write_text(text)
    return Config.fromfile(folder / name)


@pytest.mark.parametrize('text', STYLES.values(), ids=STYLES)
def test_three_lines_of_the_readme_normalise_as_the_stock_config(tmp_path, make_batch, text):
    stock = build_segmentor(write(tmp_path, text))
    mine = build_segmentor(write(tmp_path, THREE_LINES, 'mine_at.py'))
    assert type(stock.data_preprocessor).__name__ == 'SegDataPreProcessor'
    assert isinstance(mine.data_preprocessor, AdvSegDataPreProcessor)
    mine.data_preprocessor.prob = 0.0
    for training in (False, True):
        expected = stock.data_preprocessor(make_batch([(32, 40), (32, 40)]), training)
        actual = mine.data_preprocessor(make_batch([(32, 40), (32, 40)]), training)
        assert expected['inputs'].std() < 3  # normalised
        assert torch.equal(actual['inputs'], expected['inputs'])


@pytest.mark.parametrize(
    'path',
    ['pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py', 'segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py'],
)
def test_three_lines_on_a_config_of_mmseg(tmp_path, path):
    stock = write(tmp_path, f"_base_ = 'mmseg::{path}'\n")
    mine = model_settings(write(tmp_path, THREE_LINES, 'mine_at.py')).data_preprocessor
    own = ('type', 'attack')
    assert {key: value for key, value in mine.items() if key not in own} == {
        key: value for key, value in model_settings(stock).data_preprocessor.items() if key != 'type'
    }
    assert mine.mean == [123.675, 116.28, 103.53]
    assert mine.attack.type == 'PGD'


def test_the_models_own_settings_come_first_and_alternatives_exclude_each_other():
    config = dict(data_preprocessor=SETTINGS, model=copy.deepcopy(NETWORK))
    config['model']['data_preprocessor'] = dict(
        type='AdvSegDataPreProcessor', prob=0, pad_val=7, size_divisor=4, rgb_to_bgr=True
    )
    merged = model_settings(config).data_preprocessor
    assert merged == dict(
        type='AdvSegDataPreProcessor',
        prob=0,
        pad_val=7,
        size_divisor=4,
        rgb_to_bgr=True,
        mean=SETTINGS['mean'],
        std=SETTINGS['std'],
        seg_pad_val=255,
        test_cfg=dict(size_divisor=8),
    )
    assert 'mean' not in config['model']['data_preprocessor']  # the config stays as it is


def test_a_preprocessor_of_mmseg_under_model_drops_the_other_as_in_mmengine():
    config = dict(data_preprocessor=SETTINGS, model=copy.deepcopy(NETWORK))
    config['model']['data_preprocessor'] = dict(type='SegDataPreProcessor', size=(32, 32))
    assert model_settings(config).data_preprocessor == dict(type='SegDataPreProcessor', size=(32, 32))


@pytest.mark.parametrize(
    ('own', 'outer', 'message'),
    [
        (dict(size=(32, 32)), SETTINGS, 'model.data_preprocessor has no type'),
        (
            dict(type='AdvSegDataPreProcessor', prob=0),
            dict(type='DetDataPreprocessor', mean=[0.0], pad_mask=True),
            "cannot inherit 'pad_mask' of the top-level data_preprocessor, which is a DetDataPreprocessor",
        ),
        (
            dict(type='FreeAdvSegDataPreProcessor', radius='4/255'),
            dict(SETTINGS, batch_augments=[]),
            "FreeAdvSegDataPreProcessor under model cannot inherit 'batch_augments'",
        ),
    ],
)
def test_what_cannot_be_inherited_is_refused(own, outer, message):
    with pytest.raises(UserError, match=re.escape(message)):
        model_settings(dict(data_preprocessor=outer, model=dict(data_preprocessor=own)))


@pytest.mark.parametrize('training', [False, True])
def test_a_runner_of_mmengine_that_drops_the_normalisation_is_told(tmp_path, make_batch, training):
    write(tmp_path, STYLES['at the top level'])
    config = write(tmp_path, THREE_LINES, 'mine_at.py')
    hub = MessageHub.get_instance(f'dropped {training}')
    hub.update_info('cfg', config.pretty_text)
    # As mmengine's runner builds it: the top-level preprocessor is dropped.
    alone = build_segmentor({'model': config.model})
    with pytest.raises(UserError, match='MMEngine drops those of the top-level data_preprocessor'):
        alone.data_preprocessor(make_batch([(32, 40)]), training)
    build_segmentor(config).data_preprocessor(make_batch([(32, 40)]), False)


def test_scope_and_head_are_those_of_the_config():
    config = dict(default_scope='mmadv', model=copy.deepcopy(NETWORK), data_preprocessor=SETTINGS)
    config['model']['decode_head'].update(type='mmseg.FCNHead', num_classes=4)
    assert build_segmentor(config).num_classes == 4


def test_there_is_no_other_way():
    files = [path for folder in ('mmadv', 'benchmarks', 'docs', 'tools') for path in (ROOT / folder).rglob('*.py')]
    builders = {path.name for path in files if re.search(r'MODELS\.build\(|init_model\(', path.read_text('utf-8'))}
    # The others build backbones for a conversion, and the preprocessor of an imported segmentor.
    assert builders == {'building.py', 'architectures.py', 'imported_segmentor.py'}
