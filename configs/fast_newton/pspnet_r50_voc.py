# Fast Newton on half of the samples, from a clean ImageNet backbone.
_base_ = ['../clean/pspnet_r50_voc.py', '../_base_/attacks/fast_newton.py']
model = dict(data_preprocessor=dict(type='AdvSegDataPreProcessor', attack={{_base_.attack}}, prob=0.5))
