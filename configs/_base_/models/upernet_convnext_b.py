# UPerNet on ConvNeXt-B with ConvStem: deeper and wider, with one more convolution in the stem.
_base_ = 'upernet_convnext_t.py'
model = dict(
    backbone=dict(depths=(3, 3, 27, 3), dims=(128, 256, 512, 1024), stem_widths=(64, 96, 128)),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
)
