# "Free" adversarial training at 0.03: all samples of 125 batches, four times in a row.
_base_ = ['standard.py', '../../../configs/_base_/methods/free_003_4.py']
model = {{_base_.method.model}}
train_cfg = {{_base_.method.train_cfg}}
