# FGSM at 0.03 with the equidistant search for its step on half of the samples.
_base_ = ['standard.py', '../../../configs/_base_/attacks/step_search_003.py']
model = dict(data_preprocessor=dict(type='AdvSegDataPreProcessor', attack={{_base_.attack}}, prob=0.5))
