# Training continues from the standard model, which mmadv demo trains.
_base_ = [
    '../_base_/models/pspnet_toy.py',
    '../_base_/datasets/digit_scenes_64x64.py',
    '../_base_/schedules/adamw_100_finetune.py',
    '../_base_/default_runtime.py',
    '../_base_/pag/regions.py',
]
# With a λ of 0.5 the gradients hardly change in so few iterations.
model = dict(type='PAGEncoderDecoder', pag=dict(weight=3))
train_dataloader = dict(batch_size=8)
load_from = 'demo_output/pspnet_clean_digits/training/iter_200.pth'
