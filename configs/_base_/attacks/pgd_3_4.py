# Three steps of PGD at 4/255, from a random start.
attack = dict(type='PGD', threat=dict(type='Linf', radius='4/255'), steps=3, step_size=0.01)
