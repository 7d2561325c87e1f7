# Gaussian noise of standard deviation 0.12 on all samples, for randomized smoothing with the same deviation.
_base_ = ['../clean/upernet_r18_clean_camvid_finetune.py', '../_base_/attacks/gaussian_noise_012.py']
model = dict(data_preprocessor=dict(type='AdvSegDataPreProcessor', attack={{_base_.attack}}))
