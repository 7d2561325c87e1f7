_base_ = [
    '../_base_/models/segmenter_toy.py',
    '../_base_/datasets/digit_scenes_64x64.py',
    '../_base_/schedules/adamw_200.py',
    '../_base_/default_runtime.py',
]
