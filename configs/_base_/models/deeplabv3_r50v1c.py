# DeepLabv3 on the backbone of pspnet_r50v1c.py, of the width that DDC-AT's authors take. The convolution behind their
# pyramid is 1x1, that of mmseg's head 3x3.
_base_ = 'pspnet_r50v1c.py'
model = dict(
    decode_head=dict(
        _delete_=True,
        type='ASPPHead',
        in_channels=2048,
        in_index=3,
        channels=256,
        dilations=(1, 6, 12, 18),
        dropout_ratio=0.1,
        num_classes=21,
        norm_cfg={{_base_.norm_cfg}},
        align_corners=True,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
    ),
    auxiliary_head=dict(kernel_size=1),
)
