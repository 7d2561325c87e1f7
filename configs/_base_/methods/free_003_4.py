# "Free" adversarial training (Shafahi et al., 2019) at 0.03: every batch four times in a row.
method = dict(
    model=dict(data_preprocessor=dict(type='FreeAdvSegDataPreProcessor', radius=0.03)),
    train_cfg=dict(type='FreeTrainLoop', replays=4),
)
