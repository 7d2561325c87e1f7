# Fast Newton on half of the samples, from a clean ImageNet backbone.
_base_ = ['../clean/segmenter_vit_s_ade20k.py', '../_base_/attacks/fast_newton.py']
model = dict(data_preprocessor=dict(type='AdvSegDataPreProcessor', attack={{_base_.attack}}, prob=0.5))
