_base_ = ['../demo/pspnet_clean_digits.py', '../_base_/pag/distillation.py']
model = dict(type='PAGEncoderDecoder', pag={{_base_.pag}})
