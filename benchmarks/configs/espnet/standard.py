# ESPNet on CamVid at 160x120: training goes on from the published weights, on clean images.
_base_ = '../../../projects/espnet/configs/espnet_camvid.py'
scale = (160, 120)  # width, height
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=scale, ratio_range=(1.0, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=scale[::-1]),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='Resize', scale=scale),
    dict(type='ScoreAtInputSize'),
    dict(type='PackSegInputs'),
]
workers = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(batch_size=8, **workers, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=8, **workers, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, begin=0, end=500)]
train_cfg = dict(max_iters=500, val_interval=500)
load_from = 'work_dirs/espnet/espnet_camvid.pth'
custom_hooks = [dict(type='ChannelsLastHook')]
