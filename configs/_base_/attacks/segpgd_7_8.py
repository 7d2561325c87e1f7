# Seven steps of SegPGD at 8/255, from a random start (SegPGD-AT of SEA's table 3, which names no step size).
attack = dict(type='SegPGD', threat=dict(type='Linf', radius='8/255'), steps=7, step_size=0.01)
