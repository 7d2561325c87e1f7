# PSPNet on the first three stages of a ResNet-18 with a quarter of the width, at stride 4, for 64x64 images on a CPU.
norm_cfg = dict(type='BN', requires_grad=True)
data_preprocessor = dict(
    type='SegDataPreProcessor',
    mean=[127.5, 127.5, 127.5],
    std=[63.75, 63.75, 63.75],
    bgr_to_rgb=True,
    pad_val=0,
    seg_pad_val=255,
    size_divisor=1,
)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=data_preprocessor,
    backbone=dict(
        type='ResNetV1c',
        depth=18,
        stem_channels=16,
        base_channels=16,
        num_stages=3,
        out_indices=(2,),
        strides=(1, 1, 1),
        dilations=(1, 1, 2),
        norm_cfg=norm_cfg,
        norm_eval=False,
        style='pytorch',
        contract_dilation=True,
    ),
    decode_head=dict(
        type='PSPHead',
        in_channels=64,
        in_index=0,
        channels=64,
        pool_scales=(1, 2, 3, 6),
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
