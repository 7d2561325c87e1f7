# FGSM at 0.03, from the clean image.
attack = dict(type='FGSM', threat=dict(type='Linf', radius=0.03))
