# SegPGD-AT of Gu et al. (2022) in SEA's table 3: 7 steps at 8/255, half of the samples adversarial. The
# schedule is SEA's, not that of Gu et al.
_base_ = ['../clean/pspnet_r50_voc.py', '../_base_/attacks/segpgd_7_8.py']
model = dict(data_preprocessor=dict(type='AdvSegDataPreProcessor', attack={{_base_.attack}}, prob=0.5))
