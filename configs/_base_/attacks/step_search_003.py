# The equidistant search of Kim, Lee and Lee: FGSM at 0.03, its step shortened to the first third that fools a pixel,
# averaged over the pixels.
attack = dict(type='StepSearch', attack=dict(type='FGSM', threat=dict(type='Linf', radius=0.03)), points=3)
