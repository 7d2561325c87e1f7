# SmoothAdv: two L2 steps at 0.5 against the model smoothed by noise of 0.1, and that noise on top.
attack = dict(
    type='SmoothAdv',
    attack=dict(type='PGD', threat=dict(type='L2', radius=0.5), steps=2, step_size=0.35),
    sigma=0.1,
    samples=2,
)
