# Five steps of PGD at 4/255, from a random start (5-step AT of 'Towards reliable evaluation and fast training of robust
# semantic segmentation models').
attack = dict(type='PGD', threat=dict(type='Linf', radius='4/255'), steps=5, step_size=0.01)
