# AT-101 of 'Adversarially robust segmentation models learn perceptually-aligned gradients': ResNet-101 and 3 epochs.
_base_ = './fcn_r50_coco.py'
model = dict(backbone=dict(depth=101, init_cfg=dict(checkpoint='checkpoints/resnet101-63fe2227.pth')))
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, begin=0, end=17344)]
train_cfg = dict(max_iters=17344, val_interval=5782)
