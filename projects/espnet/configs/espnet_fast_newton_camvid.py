# Fast Newton on half of the images.
_base_ = ['espnet_camvid.py', __import__('mmadv').cfg('_base_/attacks/fast_newton.py')]
model = dict(data_preprocessor=dict(type='AdvSegDataPreProcessor', attack={{_base_.attack}}, prob=0.5))
