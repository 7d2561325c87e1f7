_base_ = ['../clean/upernet_r18_clean_camvid.py', '../_base_/attacks/pgd_3_2.py']
model = dict(data_preprocessor=dict(type='AdvSegDataPreProcessor', attack={{_base_.attack}}))
