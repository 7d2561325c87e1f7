# Segmenter on CamVid at 160x120: a narrow ViT with patches of 8x8, from random initialisation.
_base_ = [
    '../../configs/_base_/models/segmenter_toy.py',
    '../../configs/_base_/datasets/camvid_160x120.py',
    '../../configs/_base_/schedules/adamw_800.py',
    '../../configs/_base_/default_runtime.py',
]
width = 64
model = dict(
    backbone=dict(img_size=(120, 160), patch_size=8, embed_dims=width, num_heads=2),
    decode_head=dict(
        in_channels=width,
        channels=width,
        embed_dims=width,
        num_heads=2,
        loss_decode=dict(_delete_=True, type='CrossEntropyLoss', avg_non_ignore=True),
    ),
)
