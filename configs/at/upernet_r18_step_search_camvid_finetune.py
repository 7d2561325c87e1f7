# FGSM at 0.03 with the equidistant search for its step on half of the samples.
_base_ = ['../clean/upernet_r18_clean_camvid_finetune.py', '../_base_/attacks/step_search_003.py']
model = dict(data_preprocessor=dict(type='AdvSegDataPreProcessor', attack={{_base_.attack}}, prob=0.5))
