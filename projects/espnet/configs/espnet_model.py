# ESPNet for CamVid's 11 classes; a run also needs data and a schedule.
_base_ = __import__('mmadv').cfg('_base_/default_runtime.py')
custom_imports = dict(imports=['mmadv', 'espnet_segmentor'], allow_failed_imports=False)
# The published network takes BGR, (x - mean) / std / 255. A std 255 times as large does the same.
data_preprocessor = dict(
    type='SegDataPreProcessor',
    mean=[107.99726, 106.4418, 103.064316],
    std=[255 * 77.28294, 255 * 78.539116, 255 * 77.21147],
    bgr_to_rgb=False,
    pad_val=0,
    seg_pad_val=255,
    size_divisor=8,
    test_cfg=dict(size_divisor=8),
)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=data_preprocessor,
    backbone=dict(type='ESPNetEncoder'),
    decode_head=dict(
        type='ESPNetHead',
        num_classes=11,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
