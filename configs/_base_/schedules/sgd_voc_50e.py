# Table 5 of 'Towards reliable evaluation and fast training of robust semantic segmentation models', PSPNet on
# PASCAL VOC: 50 epochs of 8498 images in batches of 128 (16 on each of 8 devices), the first 5 of them warm-up. The
# base learning rate is the encoder's. The decoder starts from random weights, with a ten times higher learning rate.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=5e-4, momentum=0.9, weight_decay=0.0),
    paramwise_cfg=dict(custom_keys={'decode_head': dict(lr_mult=10.0), 'auxiliary_head': dict(lr_mult=10.0)}),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=332),
    dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, begin=332, end=3320),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=3320, val_interval=332)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=128)
