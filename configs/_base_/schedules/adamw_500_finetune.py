# 500 iterations of AdamW from trained weights: short warm-up, then polynomial decay.
_base_ = './adamw_800.py'
optim_wrapper = dict(optimizer=dict(lr=5e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=20),
    dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, begin=20, end=500),
]
train_cfg = dict(max_iters=500, val_interval=500)
