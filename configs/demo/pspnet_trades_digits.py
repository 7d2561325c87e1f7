_base_ = ['./pspnet_clean_digits.py', '../_base_/methods/trades_5_4.py']
model = {{_base_.method.model}}
