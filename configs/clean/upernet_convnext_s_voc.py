# UPerNet on ConvNeXt-S with ConvStem, PASCAL VOC, from a clean ImageNet backbone.
_base_ = [
    '../_base_/models/upernet_convnext_s.py',
    '../_base_/datasets/voc2012_aug_473.py',
    '../_base_/schedules/adamw_voc_50e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(
        init_cfg=dict(
            type='RobustPretrained', checkpoint='checkpoints/convnext_s_cvst_clean.pt', source='revisiting-at'
        )
    )
)
