# Three steps of PGD at 0.03, from a random start ('Adversarially robust segmentation models learn
# perceptually-aligned gradients', which names no start; and the AT that SEA's table 3 compares with).
attack = dict(type='PGD', threat=dict(type='Linf', radius=0.03), steps=3, step_size=0.01)
