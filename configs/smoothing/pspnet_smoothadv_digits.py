_base_ = ['../demo/pspnet_clean_digits.py', '../_base_/attacks/smoothadv_2_l2_05.py']
model = dict(data_preprocessor=dict(type='AdvSegDataPreProcessor', attack={{_base_.attack}}))
