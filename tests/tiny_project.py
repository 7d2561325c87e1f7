"""A dataset of a few PNG images, a config and a checkpoint, small enough to train and attack in seconds."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ('ground', 'box', 'disc')
CONFIG = """
custom_imports = dict(imports=['mmadv'])
default_scope = 'mmseg'
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
metainfo = dict(classes=('ground', 'box', 'disc'), palette=[[0, 0, 0], [220, 20, 60], [0, 0, 200]])
dataset = dict(
    type='BaseSegDataset',
    data_root={root!r},
    data_prefix=dict(img_path='images', seg_map_path='labels'),
    img_suffix='.png',
    metainfo=metainfo,
    pipeline=pipeline,
)
train_dataloader = dict(
    batch_size=3, num_workers=0, sampler=dict(type='InfiniteSampler', shuffle=True), dataset=dataset
)
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dataset
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[127.5] * 3, std=[60.0] * 3, bgr_to_rgb=True, size=(32, 40)
    ),
    backbone=dict(
        type='ResNet', depth=18, base_channels=16, stem_channels=16, num_stages=1, out_indices=(0,),
        strides=(1,), dilations=(1,), norm_cfg=dict(type='BN'),
    ),
    decode_head=dict(
        type='FCNHead', in_channels=16, in_index=0, channels=16, num_convs=1, num_classes=3, dropout_ratio=0.0,
        norm_cfg=dict(type='BN'), loss_decode=dict(type='CrossEntropyLoss'),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=0.01))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=60, val_interval=60)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=60))
log_processor = dict(by_epoch=False)
env_cfg = dict(mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0))
randomness = dict(seed=0)
"""


def write_dataset(root: Path, images: int = 6) -> None:
    """Writes images of a box and a disc, of two sizes, with a void border; the last one is void throughout."""
    rng = np.random.default_rng(0)
    for folder in ('images', 'labels'):
        (root / folder).mkdir(parents=True)
    for n in range(images):
        height, width = (32, 40) if n % 2 else (32, 32)
        y, x = np.mgrid[:height, :width]
        label = np.zeros((height, width), np.uint8)
        top, left = rng.integers(2, 12, 2)
        label[top : top + 9, left : left + 9] = 1
        label[(y - 24) ** 2 + (x - 24) ** 2 < 30] = 2
        colours = np.array([[90, 90, 90], [170, 80, 60], [60, 80, 170]])
        pixels = colours[label] + rng.normal(0, 6, (height, width, 3))
        label[:, :2] = 255
        if n == images - 1:
            label[:] = 255
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / 'images' / f'{n}.png')
        Image.fromarray(label).save(root / 'labels' / f'{n}.png')


def write_config(path: Path, root: Path, extra: str = '') -> Path:
    """Writes the config, with further lines at its end."""
    path.write_text(CONFIG.format(root=str(root)) + extra)
    return path


def train(config: Path, work_dir: Path) -> None:
    """Trains the config for its 60 iterations, in this process."""
    from mmadv.commands.training import run_train

    run_train([str(config), '--work-dir', str(work_dir)])


def runner_for_test(config: Path, work_dir: Path, loop: dict, metric: dict | None = None, **options):
    """Returns a runner of the config that tests trained weights with a loop and a metric."""
    from mmengine.config import Config
    from mmengine.runner import Runner

    from mmadv.checkpoints.loading import load_weights

    built = Config.fromfile(str(config))
    built.work_dir, built.log_level = str(work_dir), 'WARNING'
    built.test_cfg = loop
    built.test_evaluator = metric or {'type': 'AttackMetric'}
    built.merge_from_dict(options)
    runner = Runner.from_cfg(built)
    load_weights(runner.model, config.parent / 'trained.pth')
    return runner
