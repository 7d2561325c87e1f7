_base_ = ['../demo/pspnet_clean_digits.py', '../_base_/methods/stability_012.py']
model = {{_base_.method.model}}
