# TRADES with beta 6: three steps of PGD at 0.03 on the divergence from the clean prediction.
_base_ = './trades_5_4.py'
method = dict(model=dict(data_preprocessor=dict(attack=dict(threat=dict(radius=0.03), steps=3))))
