# PIR-AT in small: UPerNet on CamVid, from the ConvNeXt that benchmarks/pir_at.py trains adversarially on single digits.
_base_ = [
    '../_base_/models/upernet_toy.py',
    '../_base_/datasets/camvid_160x120.py',
    '../_base_/schedules/adamw_800.py',
    '../_base_/default_runtime.py',
    '../_base_/attacks/pgd_2_4.py',
]
model = dict(
    data_preprocessor=dict(type='AdvSegDataPreProcessor', attack={{_base_.attack}}),
    backbone=dict(
        input_convention='inception',
        init_cfg=dict(
            type='RobustPretrained',
            checkpoint='work_dirs/pir_at/classifier_robust.pth',
            source='timm',
            input_convention='inception',
        ),
    ),
    decode_head=dict(loss_decode=dict(_delete_=True, type='CrossEntropyLoss', avg_non_ignore=True)),
)
