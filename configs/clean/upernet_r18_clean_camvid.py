_base_ = [
    '../_base_/models/upernet_r18.py',
    '../_base_/datasets/camvid_160x120.py',
    '../_base_/schedules/adamw_1000.py',
    '../_base_/default_runtime.py',
]
