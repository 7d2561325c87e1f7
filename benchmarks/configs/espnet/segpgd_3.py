# Three steps of SegPGD at 0.03 on half of the samples.
_base_ = 'standard.py'
attack = dict(type='SegPGD', threat=dict(type='Linf', radius=0.03), steps=3, step_size=0.01)
model = dict(data_preprocessor=dict(type='AdvSegDataPreProcessor', attack=attack, prob=0.5))
