# Standard training continues from a model that is accurate and not robust.
_base_ = [
    '../_base_/models/upernet_r18.py',
    '../_base_/datasets/camvid_160x120.py',
    '../_base_/schedules/adamw_500_finetune.py',
    '../_base_/default_runtime.py',
]
# Weights that upernet_r18_clean_camvid_1500.py trains.
load_from = 'work_dirs/fast_newton/start/iter_1500.pth'
custom_hooks = [dict(type='ChannelsLastHook')]
