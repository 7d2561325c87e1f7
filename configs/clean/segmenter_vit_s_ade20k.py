# Segmenter on ViT-S, ADE20K with 151 classes, from a clean ImageNet backbone: timm's, which takes images in [-1, 1].
_base_ = [
    '../_base_/models/segmenter_vit_s.py',
    '../_base_/datasets/ade20k_151_512.py',
    '../_base_/schedules/sgd_ade20k_128e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
    backbone=dict(
        input_convention='inception',
        init_cfg=dict(type='RobustPretrained', checkpoint='checkpoints/vit_small_patch16_224_timm.pth', source='timm'),
    ),
)
