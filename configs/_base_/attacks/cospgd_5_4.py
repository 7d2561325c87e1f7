# Five steps of CosPGD at 4/255, from a random start; PGD's step size.
attack = dict(type='CosPGD', threat=dict(type='Linf', radius='4/255'), steps=5, step_size=0.01)
