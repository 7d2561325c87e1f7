# Aligned gradients. Training continues from the standard model, as long again. Train that first:
# mmadv train configs/clean/upernet_convnext_t_voc.py --work-dir work_dirs/clean/upernet_convnext_t_voc
_base_ = ['../clean/upernet_convnext_t_voc.py', '../_base_/pag/regions.py']
model = dict(type='PAGEncoderDecoder', pag={{_base_.pag}}, backbone=dict(init_cfg=None))
load_from = 'work_dirs/clean/upernet_convnext_t_voc/iter_3320.pth'
