# The schedule of DDC-AT's authors for PASCAL VOC: 50 epochs of 10582 images in batches of 16; the last batch of
# an epoch is dropped. All modules after the backbone have a ten times higher learning rate.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(
        custom_keys={
            'decode_head': dict(lr_mult=10.0),
            'auxiliary_head': dict(lr_mult=10.0),
            'branches': dict(lr_mult=10.0),
        }
    ),
)
param_scheduler = [
    dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, begin=0, end=33050),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=33050, val_interval=3305)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=16)
