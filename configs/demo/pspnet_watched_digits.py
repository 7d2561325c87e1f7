# FGSM training, validated under attack and watched for catastrophic overfitting.
_base_ = ['./pspnet_clean_digits.py', '../_base_/attacks/fgsm_003.py', '../_base_/robust_validation.py']
model = dict(data_preprocessor=dict(type='AdvSegDataPreProcessor', attack={{_base_.attack}}))
val_cfg = {{_base_.robust_validation.val_cfg}}
default_hooks = {{_base_.robust_validation.default_hooks}}
visualizer = {{_base_.robust_validation.visualizer}}
train_cfg = dict(val_interval=50)
custom_hooks = [
    dict(
        type='CatastrophicOverfittingHook',
        attack=dict(type='PGD', threat=dict(type='Linf', radius=0.03), steps=10),
        interval=50,
        action='rollback',
    )
]
