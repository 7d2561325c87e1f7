# The loss bounded: pixels that are wrong beyond hope weigh no more than log 2. Class weights are those of the base.
_base_ = './pspnet_pgd2_digits.py'
model = dict(decode_head=dict(loss_decode=dict(type='JensenShannonLoss')))
