# DeepLabv3 as DDC-AT's authors train it without defence on PASCAL VOC.
_base_ = [
    '../_base_/models/deeplabv3_r50v1c.py',
    '../_base_/datasets/voc2012_aug_ddcat_473.py',
    '../_base_/schedules/sgd_ddcat_voc_50e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(
        init_cfg=dict(type='RobustPretrained', checkpoint='checkpoints/resnet50_v2_semseg.pth', source='semseg')
    )
)
