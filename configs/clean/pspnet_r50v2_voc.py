# The basic model of 'Single-step adversarial training for semantic segmentation' on PASCAL VOC.
_base_ = [
    '../_base_/models/pspnet_r50v2.py',
    '../_base_/datasets/voc2012_aug_472.py',
    '../_base_/schedules/sgd_30k.py',
    '../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(init_cfg=dict(type='RobustPretrained', checkpoint='checkpoints/resnetv2_50_timm.pth', source='timm'))
)
