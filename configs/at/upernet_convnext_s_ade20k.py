# 5-step adversarial training from a clean ImageNet backbone.
_base_ = ['../clean/upernet_convnext_s_ade20k.py', '../_base_/attacks/pgd_5_4.py']
model = dict(data_preprocessor=dict(type='AdvSegDataPreProcessor', attack={{_base_.attack}}))
