# The demo's PSPNet on digit scenes with 21 classes, three times as long; trained by benchmarks/cell_classes.py.
_base_ = '../../configs/demo/pspnet_clean_digits.py'
custom_imports = dict(imports=['mmadv', 'cell_classes'], allow_failed_imports=False)
dataset = dict(type='SplitDigitScenesDataset', cells=(1, 2))
train_dataloader = dict(batch_size=16, dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = val_dataloader
model = dict(decode_head=dict(num_classes=21, loss_decode=dict(class_weight=[0.25] + 20 * [1.0])))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=40),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=False, begin=40, end=600, T_max=560),
]
train_cfg = dict(max_iters=600, val_interval=600)
