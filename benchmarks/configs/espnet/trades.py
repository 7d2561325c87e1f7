# TRADES at 0.03 with three steps.
_base_ = ['standard.py', '../../../configs/_base_/methods/trades_3_003.py']
model = {{_base_.method.model}}
