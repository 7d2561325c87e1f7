# UPerNet on a small ConvNeXt, for 64x64 images on a CPU.
norm_cfg = dict(type='BN', requires_grad=True)
data_preprocessor = dict(
    type='SegDataPreProcessor',
    mean=[127.5, 127.5, 127.5],
    std=[127.5, 127.5, 127.5],
    bgr_to_rgb=True,
    pad_val=0,
    seg_pad_val=255,
    size_divisor=1,
)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=data_preprocessor,
    backbone=dict(type='TimmConvNeXt', depths=(1, 1, 2, 1), dims=(32, 64, 128, 192), layer_scale=None),
    decode_head=dict(
        type='UPerHead',
        in_channels=[32, 64, 128, 192],
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2),
        channels=48,
        dropout_ratio=0.0,
        num_classes=11,
        norm_cfg=norm_cfg,
        align_corners=False,
        # Four pixels in five are background.
        loss_decode=dict(type='CrossEntropyLoss', class_weight=[0.25] + 10 * [1.0]),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
