# PIR-AT for 300 epochs: the same adversarial training from an adversarially trained ImageNet backbone.
_base_ = '../at/pspnet_r50_voc_300e.py'
model = dict(backbone=dict(init_cfg=dict(checkpoint='checkpoints/resnet50_linf_eps4.0.ckpt', source='salman')))
