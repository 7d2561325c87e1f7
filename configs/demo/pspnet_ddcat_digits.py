_base_ = ['./pspnet_clean_digits.py', '../_base_/methods/ddcat_bim3_003.py']
model = {{_base_.method.model}}
