# UPerNet on ConvNeXt-S with ConvStem: deeper, with less stochastic depth.
_base_ = 'upernet_convnext_t.py'
model = dict(backbone=dict(depths=(3, 3, 27, 3), drop_path_rate=0.3))
