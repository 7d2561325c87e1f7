# FGSM with its radius drawn from U(0, 0.03), on half of the samples.
_base_ = ['standard.py', '../../../configs/_base_/attacks/random_fgsm_003.py']
model = dict(data_preprocessor=dict(type='AdvSegDataPreProcessor', attack={{_base_.attack}}, prob=0.5))
