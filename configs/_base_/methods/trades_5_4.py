# TRADES (Zhang et al., 2019) with beta 6: five steps of PGD at 4/255 on the divergence from the clean prediction.
method = dict(
    model=dict(
        type='TRADESEncoderDecoder',
        beta=6.0,
        data_preprocessor=dict(
            type='AdvSegDataPreProcessor',
            attack=dict(
                type='PGD',
                threat=dict(type='Linf', radius='4/255'),
                steps=5,
                step_size=0.01,
                objective=dict(type='KullbackLeibler'),
            ),
        ),
    )
)
