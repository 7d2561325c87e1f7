# 2-step adversarial training from a clean ImageNet backbone.
_base_ = ['../clean/upernet_convnext_t_ade20k_150.py', '../_base_/attacks/pgd_2_4.py']
model = dict(data_preprocessor=dict(type='AdvSegDataPreProcessor', attack={{_base_.attack}}))
