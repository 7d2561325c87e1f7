# The robust UPerNet on ConvNeXt-T for PASCAL VOC,
# published by SEA's authors (Robust-Segmentation), scored by their protocol.
_base_ = [
    '../_base_/models/upernet_convnext_t.py',
    '../_base_/datasets/voc2012_sea_protocol.py',
    '../_base_/default_runtime.py',
]
