# Three steps of BIM at 0.03, from the clean image.
attack = dict(type='BIM', threat=dict(type='Linf', radius=0.03), steps=3, step_size=0.01)
