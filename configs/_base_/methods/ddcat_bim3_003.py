# DDC-AT (Xu, Zhao and Jia, 2021): three steps of BIM at 0.03, a second classifier and a mask head in training.
method = dict(
    model=dict(
        type='DDCATEncoderDecoder',
        data_preprocessor=dict(
            type='AdvSegDataPreProcessor',
            attack=dict(type='BIM', threat=dict(type='Linf', radius=0.03), steps=3, step_size=0.01),
        ),
    )
)
