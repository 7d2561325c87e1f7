# Five steps of PGD at 0.03, from a random start.
attack = dict(type='PGD', threat=dict(type='Linf', radius=0.03), steps=5, step_size=0.01)
