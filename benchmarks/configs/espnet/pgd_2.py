# Two steps of PGD at 0.03 on half of the samples.
_base_ = 'standard.py'
attack = dict(type='PGD', threat=dict(type='Linf', radius=0.03), steps=2, step_size=0.015)
model = dict(data_preprocessor=dict(type='AdvSegDataPreProcessor', attack=attack, prob=0.5))
