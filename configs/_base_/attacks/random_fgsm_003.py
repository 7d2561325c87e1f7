# FGSM whose radius is drawn from U(0, 0.03) for each image.
attack = dict(type='RandomFGSM', threat=dict(type='Linf', radius=0.03))
