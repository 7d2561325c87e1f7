# "Free" adversarial training (Shafahi et al., 2019) at 4/255: every batch four times in a row.
method = dict(
    model=dict(data_preprocessor=dict(type='FreeAdvSegDataPreProcessor', radius='4/255')),
    train_cfg=dict(type='FreeTrainLoop', replays=4),
)
