# Two steps of AMA at 8/255, of which the last iterate counts.
attack = dict(type='ScheduledPGD', threat=dict(type='Linf', radius='8/255'), steps=2, keep='last')
