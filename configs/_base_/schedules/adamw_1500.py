# 1500 iterations of AdamW: short warm-up, then polynomial decay.
_base_ = './adamw_800.py'
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, begin=100, end=1500),
]
train_cfg = dict(max_iters=1500, val_interval=500)
