# The same for Cityscapes: 400 epochs of 2975 images.
_base_ = './sgd_ddcat_voc_50e.py'
param_scheduler = [
    dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, begin=0, end=74000),
]
train_cfg = dict(max_iters=74000, val_interval=7400)
