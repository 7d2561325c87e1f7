# Table 5 of 'Towards reliable evaluation and fast training of robust semantic segmentation models', Segmenter
# on ADE20K: 128 epochs of 20210 images in batches of 128 (16 on each of 8 devices), the first 20 of them warm-up.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=2e-3, momentum=0.9, weight_decay=1e-2),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=3158),
    dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, begin=3158, end=20210),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=20210, val_interval=2021)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=128)
