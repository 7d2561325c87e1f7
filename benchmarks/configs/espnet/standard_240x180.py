# ESPNet on CamVid at 240x180: training goes on from the published weights for 2000 iterations, on clean images.
_base_ = 'standard.py'
scale = (240, 180)  # width, height
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[2].update(scale=scale)
train_pipeline[3].update(crop_size=scale[::-1])
test_pipeline[2].update(scale=scale)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=20),
    dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, begin=20, end=2000),
]
train_cfg = dict(max_iters=2000, val_interval=500)
