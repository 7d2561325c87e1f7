# FGSM at 0.03 on all samples, without a random start, validated under attack and watched for catastrophic overfitting.
_base_ = [
    'standard.py',
    '../../../configs/_base_/attacks/fgsm_003.py',
    '../../../configs/_base_/robust_validation.py',
]
model = dict(data_preprocessor=dict(type='AdvSegDataPreProcessor', attack={{_base_.attack}}))
val_cfg = {{_base_.robust_validation.val_cfg}}
default_hooks = {{_base_.robust_validation.default_hooks}}
visualizer = {{_base_.robust_validation.visualizer}}
train_cfg = dict(val_interval=50)
custom_hooks = [
    dict(type='ChannelsLastHook'),
    dict(
        type='CatastrophicOverfittingHook',
        attack=dict(type='BIM', threat=dict(type='Linf', radius=0.03), steps=10, keep='lowest_accuracy'),
        interval=50,
        images=16,
        threshold=0.3,  # at a large radius BIM-10 is stronger than FGSM on a model that has not collapsed, too
        action='rollback',
    ),
]
