# For 'Adversarially robust segmentation models learn perceptually-aligned gradients', which names no optimiser. These
# are the settings of torchvision's reference training, which made the paper's first model, at half the batch size and
# half the learning rate: 30 epochs of about 92500 images, and a ten times higher learning rate for the auxiliary head.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys={'auxiliary_head': dict(lr_mult=10.0)}),
)
param_scheduler = [
    dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, begin=0, end=173438),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=173438, val_interval=17344)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=16)
