# PIR-AT in small: from a ConvNeXt that benchmarks/pir_at.py trains adversarially to tell single digits apart.
_base_ = '../demo/upernet_pgd2_digits.py'
model = dict(
    backbone=dict(
        input_convention='inception',
        init_cfg=dict(
            type='RobustPretrained',
            checkpoint='work_dirs/pir_at/classifier_robust.pth',
            source='timm',
            input_convention='inception',
        ),
    ),
)
