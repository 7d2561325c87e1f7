# Segmenter on ViT-B/16.
_base_ = 'segmenter_vit_s.py'
model = dict(
    backbone=dict(embed_dim=768, num_heads=12),
    decode_head=dict(in_channels=768, channels=768, num_heads=12, embed_dims=768),
)
