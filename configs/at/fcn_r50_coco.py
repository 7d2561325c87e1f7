# AT-50 of 'Adversarially robust segmentation models learn perceptually-aligned gradients': 9 epochs, all samples
# adversarial.
_base_ = ['../clean/fcn_r50_coco.py', '../_base_/attacks/pgd_3_003.py']
model = dict(data_preprocessor=dict(type='AdvSegDataPreProcessor', attack={{_base_.attack}}))
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, begin=0, end=52032)]
train_cfg = dict(max_iters=52032, val_interval=5782)
