# AT of Xu et al. (2021) in SEA's table 3: 3 steps, half of the samples adversarial. The
# schedule is SEA's, not that of Xu et al.
_base_ = ['../clean/pspnet_r50_voc.py', '../_base_/attacks/pgd_3_003.py']
model = dict(data_preprocessor=dict(type='AdvSegDataPreProcessor', attack={{_base_.attack}}, prob=0.5))
