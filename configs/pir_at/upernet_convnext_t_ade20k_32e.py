# 32 epochs instead of 128, the first 5 of them warm-up.
_base_ = './upernet_convnext_t_ade20k.py'
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=790),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=790, end=5053),
]
train_cfg = dict(max_iters=5053, val_interval=506)
