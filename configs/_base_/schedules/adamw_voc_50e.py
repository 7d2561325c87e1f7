# Table 5 of 'Towards reliable evaluation and fast training of robust semantic segmentation models', UPerNet on
# PASCAL VOC: 50 epochs of 8498 images in batches of 128 (16 on each of 8 devices), the first 5 of them warm-up.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=1e-2),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=332),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=332, end=3320),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=3320, val_interval=332)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=128)
