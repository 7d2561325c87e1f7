# Fast Newton on half of the samples, its step bounded by 0.03.
_base_ = ['standard.py', '../../../configs/_base_/attacks/fast_newton_003.py']
model = dict(data_preprocessor=dict(type='AdvSegDataPreProcessor', attack={{_base_.attack}}, prob=0.5))
