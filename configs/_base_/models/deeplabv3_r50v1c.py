# DeepLabv3 on the backbone of pspnet_r50v1c.py, with the width of DDC-AT's authors. The convolution after the pyramid
# is 3x3 in mmseg's head, and 1x1 in the authors' code.
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
