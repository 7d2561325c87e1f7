# TRADES with beta 6: three steps of PGD at 0.03 on the divergence from the clean prediction.
_base_ = 'standard.py'
model = dict(
    type='TRADESEncoderDecoder',
    beta=6.0,
    data_preprocessor=dict(
        type='AdvSegDataPreProcessor',
        attack=dict(
            type='PGD',
            threat=dict(type='Linf', radius=0.03),
            steps=3,
            step_size=0.01,
            objective=dict(type='KullbackLeibler'),
        ),
    ),
)
