# Two steps of PGD at 8/255, from a random start.
attack = dict(type='PGD', threat=dict(type='Linf', radius='8/255'), steps=2, step_size='5/255')
