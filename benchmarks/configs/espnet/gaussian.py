# Gaussian noise of standard deviation 0.12 on half of the samples.
_base_ = ['standard.py', '../../../configs/_base_/attacks/gaussian_noise_012.py']
model = dict(data_preprocessor=dict(type='AdvSegDataPreProcessor', attack={{_base_.attack}}, prob=0.5))
