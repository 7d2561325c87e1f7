"""A project of one's own, trained by mmseg's own train tool: one config of mmadv inherited, one of mmseg changed."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import mmseg
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

import mmadv
from mmadv.checkpoints import load_weights

TRAIN_TOOL = Path(mmseg.__file__).parent / '.mim' / 'tools' / 'train.py'

OURS = """
_base_ = [__import__('mmadv').cfg('demo/pspnet_pgd2_digits.py')]
train_dataloader = dict(batch_size=2, dataset=dict(length=8))
val_dataloader = dict(batch_size=2, dataset=dict(length=2))
"""
STOCK_CONFIG = mmadv.cfg('mmseg::unet/unet-s5-d16_fcn_4xb4-40k_drive-64x64.py')
# The three lines that turn a stock config into adversarial training.
STOCK = f"""
_base_ = [{STOCK_CONFIG!r}]
custom_imports = dict(imports=['mmadv'])
model = dict(data_preprocessor=dict(type='AdvSegDataPreProcessor', attack=dict(
    type='SegPGD', threat=dict(type='Linf', radius='4/255'), steps=2, step_size='2/255')))
"""
# What runs a stock config on two tiny images and a CPU, as anybody would pass it.
STOCK_OPTIONS = [
    *(f'model.{part}.norm_cfg.type=BN' for part in ('backbone', 'decode_head', 'auxiliary_head')),
    *(f'{name}_dataloader.num_workers=0' for name in ('train', 'val')),
    *(f'{name}_dataloader.persistent_workers=False' for name in ('train', 'val')),
    'model.backbone.base_channels=8',
    'model.decode_head.in_channels=8',
    'model.decode_head.channels=8',
    'model.auxiliary_head.in_channels=16',
    'model.auxiliary_head.channels=8',
    'train_dataloader.batch_size=2',
    'train_dataloader.dataset.dataset.data_root=drive',
    'val_dataloader.dataset.data_root=drive',
    'val_dataloader.dataset.pipeline.1.scale=(96,96)',
]


def write_drive(root):
    """Writes two training images and one for validation in the layout of mmseg's DRIVEDataset."""
    random = np.random.default_rng(0)
    for split, names in (('training', ('21', '22')), ('validation', ('01',))):
        for folder in ('images', 'annotations'):
            (root / folder / split).mkdir(parents=True)
        for name in names:
            cv2.imwrite(
                str(root / 'images' / split / f'{name}.png'), random.integers(0, 256, (96, 96, 3), dtype=np.uint8)
            )
            vessels = (random.random((96, 96)) < 0.4).astype(np.uint8)
            cv2.imwrite(str(root / 'annotations' / split / f'{name}_manual1.png'), vessels)


@pytest.mark.parametrize(('text', 'options'), [(OURS, []), (STOCK, STOCK_OPTIONS)], ids=['ours', 'stock'])
def test_mmsegs_own_train_tool(tmp_path, text, options):
    write_drive(tmp_path / 'drive')
    config = tmp_path / 'my_config.py'
    config.write_text(text)
    command = [sys.executable, str(TRAIN_TOOL), str(config), '--work-dir', 'out', '--cfg-options']
    command += ['train_cfg.max_iters=2', 'default_hooks.logger.interval=1', 'randomness.seed=0', *options]
    environment = {**os.environ, 'PYTHONPATH': str(Path(mmadv.__file__).parents[1]), 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    checkpoint = tmp_path / 'out' / 'iter_2.pth'
    dumped = Config.fromfile(tmp_path / 'out' / 'my_config.py')
    assert dumped.model.data_preprocessor.type == 'AdvSegDataPreProcessor'
    # The checkpoint is one of the stock model, and was trained.
    dumped.model.data_preprocessor = dict(type='SegDataPreProcessor')
    with DefaultScope.overwrite_default_scope('mmseg'):
        torch.manual_seed(0)
        model = MODELS.build(dumped.model)
    before = model.decode_head.conv_seg.weight.clone()
    load_weights(model, checkpoint)
    assert torch.isfinite(model.decode_head.conv_seg.weight).all()
    assert not torch.equal(model.decode_head.conv_seg.weight, before)
