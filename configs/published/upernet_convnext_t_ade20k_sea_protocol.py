# The robust UPerNet on ConvNeXt-T for ADE20K with 151 classes,
# published by SEA's authors (Robust-Segmentation), scored by their protocol.
_base_ = [
    '../_base_/models/upernet_convnext_t.py',
    '../_base_/datasets/ade20k_151_sea_protocol.py',
    '../_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    decode_head=dict(num_classes=151),
    auxiliary_head=dict(num_classes=151),
)
