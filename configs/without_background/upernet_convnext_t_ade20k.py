# A UPerNet on ConvNeXt-T that was trained with ADE20K's 151 classes, scored without the background (SEA, appendix C.3):
# pixels of the background do not count, and its score takes no part in predictions. For tests alone.
_base_ = '../clean/upernet_convnext_t_ade20k_150.py'
model = dict(
    type='ClassExcludingEncoderDecoder',
    excluded_classes=(0,),
    backbone=dict(init_cfg=None),
    decode_head=dict(num_classes=151),
    auxiliary_head=dict(num_classes=151),
)
