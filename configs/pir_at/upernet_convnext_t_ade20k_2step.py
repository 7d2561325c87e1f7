# 2 attack steps instead of 5.
_base_ = './upernet_convnext_t_ade20k.py'
attack = dict(steps=2)
model = dict(data_preprocessor=dict(attack=dict(steps=2)))
