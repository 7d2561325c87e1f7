# Gaussian noise of standard deviation 0.25 on every sample.
_base_ = 'standard_240x180.py'
attack = dict(type='GaussianNoise', sigma=0.25)
model = dict(data_preprocessor=dict(type='AdvSegDataPreProcessor', attack=attack))
