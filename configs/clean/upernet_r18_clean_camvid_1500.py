# The model that single-step fine-tuning starts from: it is accurate and not robust.
_base_ = [
    '../_base_/models/upernet_r18.py',
    '../_base_/datasets/camvid_160x120.py',
    '../_base_/schedules/adamw_1500.py',
    '../_base_/default_runtime.py',
]
train_dataloader = dict(batch_size=16)
custom_hooks = [dict(type='ChannelsLastHook')]
