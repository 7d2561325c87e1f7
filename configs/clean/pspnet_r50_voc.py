# PSPNet on ResNet-50, PASCAL VOC, from a clean ImageNet backbone.
_base_ = [
    '../_base_/models/pspnet_r50.py',
    '../_base_/datasets/voc2012_aug_473.py',
    '../_base_/schedules/sgd_voc_50e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(
        init_cfg=dict(type='RobustPretrained', checkpoint='checkpoints/resnet50-0676ba61.pth', source='torchvision')
    )
)
