_base_ = ['./pspnet_clean_digits.py', '../_base_/attacks/ama_2_8.py']
model = dict(data_preprocessor=dict(type='AdvSegDataPreProcessor', attack={{_base_.attack}}))
