_base_ = ['../demo/segmenter_clean_digits.py', '../_base_/pag/nearest_neighbour.py']
model = dict(type='PAGEncoderDecoder', pag={{_base_.pag}})
