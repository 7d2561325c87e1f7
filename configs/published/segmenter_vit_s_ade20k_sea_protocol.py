# The robust Segmenter on ViT-S for ADE20K with 151 classes,
# published by SEA's authors (Robust-Segmentation), scored by their protocol.
_base_ = [
    '../_base_/models/segmenter_vit_s.py',
    '../_base_/datasets/ade20k_151_sea_protocol.py',
    '../_base_/default_runtime.py',
]
