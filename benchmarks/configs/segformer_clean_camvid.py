# SegFormer on CamVid at 160x120: a narrow Mix Transformer, from random initialisation.
_base_ = [
    '../../configs/_base_/models/upernet_r18.py',
    '../../configs/_base_/datasets/camvid_160x120.py',
    '../../configs/_base_/schedules/adamw_800.py',
    '../../configs/_base_/default_runtime.py',
]
model = dict(
    backbone=dict(
        _delete_=True,
        type='MixVisionTransformer',
        embed_dims=16,
        num_layers=[2, 2, 2, 2],
        num_heads=[1, 2, 4, 8],
        patch_sizes=[7, 3, 3, 3],
        sr_ratios=[8, 4, 2, 1],
    ),
    decode_head=dict(
        _delete_=True,
        type='SegformerHead',
        in_channels=[16, 32, 64, 128],
        in_index=[0, 1, 2, 3],
        channels=64,
        dropout_ratio=0.1,
        num_classes=11,
        norm_cfg=dict(type='BN', requires_grad=True),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
    ),
)
