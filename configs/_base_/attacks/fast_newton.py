# Fast Newton: one gradient, the step size from the mean gain, no radius.
attack = dict(type='FastNewton')
