# RB of 'Adversarially robust segmentation models learn perceptually-aligned gradients': only the heads learn, on clean
# images of PASCAL VOC. The ResNet-50 backbone is frozen; it was adversarially trained on ImageNet (l2, radius 3).
_base_ = [
    '../_base_/models/fcn_r50.py',
    '../_base_/datasets/voc2012_aug_473.py',
    '../_base_/schedules/sgd_voc_20e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(size=(473, 473)),
    backbone=dict(
        frozen_stages=4,
        norm_eval=True,
        init_cfg=dict(type='RobustPretrained', checkpoint='checkpoints/resnet50_l2_eps3.pth', source='madry'),
    ),
)
train_dataloader = dict(
    dataset=dict(data_prefix=dict(seg_map_path='SegmentationClass'), ann_file='ImageSets/Segmentation/train.txt')
)
