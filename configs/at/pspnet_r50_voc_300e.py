# 300 epochs instead of 50, the first 30 of them warm-up.
_base_ = './pspnet_r50_voc.py'
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1992),
    dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, begin=1992, end=19918),
]
train_cfg = dict(max_iters=19918, val_interval=1992)
