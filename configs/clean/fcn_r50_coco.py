# Pre of 'Adversarially robust segmentation models learn perceptually-aligned gradients': FCN on ResNet-50, COCO with
# VOC's 21 classes. The weight of the auxiliary loss is that of torchvision's reference training.
_base_ = [
    '../_base_/models/fcn_r50.py',
    '../_base_/datasets/coco_voc21.py',
    '../_base_/schedules/sgd_coco_30e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(
        init_cfg=dict(type='RobustPretrained', checkpoint='checkpoints/resnet50-0676ba61.pth', source='torchvision')
    ),
    auxiliary_head=dict(loss_decode=dict(loss_weight=0.5)),
)
