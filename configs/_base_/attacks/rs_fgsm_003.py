# RS-FGSM (Wong et al., 2020): one step of 1.25 times the radius, from a random start.
attack = dict(type='PGD', threat=dict(type='Linf', radius=0.03), steps=1, step_size=0.0375)
