# ESPNet on CamVid at 160x120: training goes on from the published weights, on clean images.
_base_ = [
    '../../../projects/espnet/configs/espnet_model.py',
    '../../../configs/_base_/datasets/camvid_160x120.py',
    '../../../configs/_base_/schedules/adamw_500_finetune.py',
]
load_from = 'work_dirs/espnet/espnet_camvid.pth'
custom_hooks = [dict(type='ChannelsLastHook')]
