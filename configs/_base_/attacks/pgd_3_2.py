# Three steps of PGD at 2/255, from a random start.
attack = dict(type='PGD', threat=dict(type='Linf', radius='2/255'), steps=3, step_size='1/255')
