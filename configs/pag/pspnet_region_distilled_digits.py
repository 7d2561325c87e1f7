# Training continues from the standard model, which mmadv demo trains.
_base_ = [
    '../_base_/models/pspnet_toy.py',
    '../_base_/datasets/digit_scenes_64x64.py',
    '../_base_/schedules/adamw_100_finetune.py',
    '../_base_/default_runtime.py',
    '../_base_/pag/region_distillation.py',
]
model = dict(type='PAGEncoderDecoder', pag={{_base_.pag}})
train_dataloader = dict(batch_size=8)
load_from = 'demo_output/pspnet_clean_digits/training/iter_200.pth'
