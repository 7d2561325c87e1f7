# The random FGSM model of 'Single-step adversarial training for semantic segmentation': half of the samples are
# adversarial.
_base_ = ['../clean/pspnet_r50v2_cityscapes.py', '../_base_/attacks/random_fgsm_003.py']
model = dict(data_preprocessor=dict(type='AdvSegDataPreProcessor', attack={{_base_.attack}}, prob=0.5))
