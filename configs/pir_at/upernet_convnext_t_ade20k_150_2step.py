# PIR-AT: the same adversarial training from an adversarially trained ImageNet backbone (SEA, appendix C.3).
_base_ = '../at/upernet_convnext_t_ade20k_150_2step.py'
model = dict(backbone=dict(init_cfg=dict(checkpoint='checkpoints/convnext_t_cvst_robust.pt')))
