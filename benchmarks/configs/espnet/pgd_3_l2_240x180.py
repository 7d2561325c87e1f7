# Three steps of PGD in an L2 ball of radius 4, on every sample.
_base_ = 'standard_240x180.py'
attack = dict(type='PGD', threat=dict(type='L2', radius=4.0), steps=3, step_size=2.0)
model = dict(data_preprocessor=dict(type='AdvSegDataPreProcessor', attack=attack))
