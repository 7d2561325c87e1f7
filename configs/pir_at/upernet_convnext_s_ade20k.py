# PIR-AT: the same adversarial training from an adversarially trained ImageNet backbone.
_base_ = '../at/upernet_convnext_s_ade20k.py'
model = dict(backbone=dict(init_cfg=dict(checkpoint='checkpoints/convnext_s_cvst_robust.pt')))
