# 2 attack steps instead of 5.
_base_ = './upernet_convnext_t_voc.py'
attack = dict(steps=2)
model = dict(data_preprocessor=dict(attack=dict(steps=2)))
