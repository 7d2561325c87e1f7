# UPerNet on ConvNeXt-S with ConvStem, ADE20K with 151 classes, from a clean ImageNet backbone.
_base_ = './upernet_convnext_t_ade20k.py'
model = dict(
    backbone=dict(
        depths=(3, 3, 27, 3),
        drop_path_rate=0.3,
        init_cfg=dict(checkpoint='checkpoints/convnext_s_cvst_clean.pt'),
    )
)
