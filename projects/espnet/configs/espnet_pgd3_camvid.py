# Adversarial training: three steps of PGD at 4/255 on every image.
_base_ = ['espnet_camvid.py', __import__('mmadv').cfg('_base_/attacks/pgd_3_4.py')]
model = dict(data_preprocessor=dict(type='AdvSegDataPreProcessor', attack={{_base_.attack}}))
