# DeepLabv3 as DDC-AT's authors train it without defence on Cityscapes.
_base_ = [
    '../_base_/models/deeplabv3_r50v1c.py',
    '../_base_/datasets/cityscapes_ddcat_449.py',
    '../_base_/schedules/sgd_ddcat_cityscapes_400e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(size=(449, 449)),
    backbone=dict(
        init_cfg=dict(type='RobustPretrained', checkpoint='checkpoints/resnet50_v2_semseg.pth', source='semseg')
    ),
    decode_head=dict(num_classes=19),
    auxiliary_head=dict(num_classes=19),
)
