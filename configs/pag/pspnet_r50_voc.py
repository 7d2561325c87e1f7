# Aligned gradients. Training continues from the standard model, as long again. Train that first:
# mmadv train configs/clean/pspnet_r50_voc.py --work-dir work_dirs/clean/pspnet_r50_voc
_base_ = ['../clean/pspnet_r50_voc.py', '../_base_/pag/regions.py']
model = dict(type='PAGEncoderDecoder', pag={{_base_.pag}}, backbone=dict(init_cfg=None))
load_from = 'work_dirs/clean/pspnet_r50_voc/iter_3320.pth'
