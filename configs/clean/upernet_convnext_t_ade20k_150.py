# UPerNet on ConvNeXt-T with ConvStem, ADE20K with 150 classes (SEA, appendix C.3), from a clean ImageNet backbone.
_base_ = [
    '../_base_/models/upernet_convnext_t.py',
    '../_base_/datasets/ade20k_150_512.py',
    '../_base_/schedules/adamw_ade20k_128e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(
        init_cfg=dict(
            type='RobustPretrained', checkpoint='checkpoints/convnext_t_cvst_clean.pt', source='revisiting-at'
        )
    ),
    decode_head=dict(num_classes=150),
    auxiliary_head=dict(num_classes=150),
)
