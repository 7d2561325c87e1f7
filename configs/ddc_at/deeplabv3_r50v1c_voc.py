# DDC-AT with the settings of its authors.
_base_ = ['../clean/deeplabv3_r50v1c_voc.py', '../_base_/methods/ddcat_bim3_003.py']
model = {{_base_.method.model}}
