# PSPNet as in its authors' code: a ResNet-50 whose stem has convolutions of 64, 64 and 128 channels. Its output stride
# is 8: two stages are dilated by 2 and 4 from their first block on. Logits are resized with aligned corners.
_base_ = './pspnet_r50.py'
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    backbone=dict(
        _delete_=True,
        type='ResNetV1c',
        depth=50,
        stem_channels=128,
        strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4),
        contract_dilation=False,
        style='pytorch',
        norm_cfg=norm_cfg,
        norm_eval=False,
    ),
    decode_head=dict(align_corners=True),
    auxiliary_head=dict(align_corners=True),
)
