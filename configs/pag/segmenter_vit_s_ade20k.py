# Aligned gradients. Training continues from the standard model, as long again. Train that first:
# mmadv train configs/clean/segmenter_vit_s_ade20k.py --work-dir work_dirs/clean/segmenter_vit_s_ade20k
_base_ = ['../clean/segmenter_vit_s_ade20k.py', '../_base_/pag/regions.py']
model = dict(type='PAGEncoderDecoder', pag={{_base_.pag}}, backbone=dict(init_cfg=None))
load_from = 'work_dirs/clean/segmenter_vit_s_ade20k/iter_20210.pth'
