# Gradients that point to one crop of each class.
pag = dict(weight=0.3, classes_per_step=2)
custom_hooks = [dict(type='PAGTargetHook', target=dict(type='OneImage'))]
