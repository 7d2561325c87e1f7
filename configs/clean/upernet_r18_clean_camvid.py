_base_ = [
    '../_base_/models/upernet_r18.py',
    '../_base_/datasets/camvid_160x120.py',
    '../_base_/schedules/adamw_800.py',
    '../_base_/default_runtime.py',
]
custom_hooks = [dict(type='ChannelsLastHook')]
