# Segmenter: a small ViT with a mask transformer, for 64x64 images on a CPU.
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
        type='VisionTransformer',
        img_size=(64, 64),
        patch_size=4,
        in_channels=3,
        embed_dims=96,
        num_layers=4,
        num_heads=3,
        final_norm=True,
        norm_cfg=dict(type='LN', eps=1e-6, requires_grad=True),
    ),
    decode_head=dict(
        type='SegmenterMaskTransformerHead',
        in_channels=96,
        channels=96,
        num_classes=11,
        num_layers=1,
        num_heads=3,
        embed_dims=96,
        dropout_ratio=0.0,
        # Four pixels in five are background.
        loss_decode=dict(type='CrossEntropyLoss', class_weight=[0.25] + 10 * [1.0]),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
