# RS-FGSM (Wong et al., 2020): one step of 1.25 times the radius, from a random start.
attack = dict(type='PGD', threat=dict(type='Linf', radius='4/255'), steps=1, step_size='5/255')
