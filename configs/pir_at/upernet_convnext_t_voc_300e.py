# PIR-AT for 300 epochs: the same adversarial training from an adversarially trained ImageNet backbone.
_base_ = '../at/upernet_convnext_t_voc_300e.py'
model = dict(backbone=dict(init_cfg=dict(checkpoint='checkpoints/convnext_t_cvst_robust.pt')))
