_base_ = ['./pspnet_clean_digits.py', '../_base_/methods/free_4_4.py']
model = {{_base_.method.model}}
train_cfg = {{_base_.method.train_cfg}}
