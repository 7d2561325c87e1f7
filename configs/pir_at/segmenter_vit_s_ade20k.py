# PIR-AT: the same adversarial training from an adversarially trained ImageNet backbone,
# which takes images in [0, 1].
_base_ = '../at/segmenter_vit_s_ade20k.py'
model = dict(
    data_preprocessor=dict(mean=[0, 0, 0], std=[255, 255, 255]),
    backbone=dict(
        input_convention='unit',
        init_cfg=dict(checkpoint='checkpoints/vit_s_robust.pt', source='revisiting-at'),
    ),
)
