# Fast Newton with its step bounded by 0.03.
attack = dict(type='FastNewton', max_radius=0.03)
