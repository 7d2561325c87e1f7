# The basic model of 'Single-step adversarial training for semantic segmentation' on Cityscapes.
_base_ = [
    '../_base_/models/pspnet_r50v2.py',
    '../_base_/datasets/cityscapes_712.py',
    '../_base_/schedules/sgd_90k.py',
    '../_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(size=(712, 712)),
    backbone=dict(init_cfg=dict(type='RobustPretrained', checkpoint='checkpoints/resnetv2_50_timm.pth', source='timm')),
    decode_head=dict(num_classes=19),
)
