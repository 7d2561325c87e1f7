# 100 iterations of AdamW from trained weights: short warm-up, then cosine decay.
_base_ = './adamw_200.py'
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=10),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=False, begin=10, end=100, T_max=90),
]
train_cfg = dict(max_iters=100, val_interval=100)
