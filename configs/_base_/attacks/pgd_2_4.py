# Two steps of PGD at 4/255, from a random start (2-step AT of 'Towards reliable evaluation and fast training of robust
# semantic segmentation models').
attack = dict(type='PGD', threat=dict(type='Linf', radius='4/255'), steps=2, step_size=0.01)
