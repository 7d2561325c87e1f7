# Gradients that point to the mean of 32 crops of each class.
pag = dict(weight=0.3, classes_per_step=2)
custom_hooks = [dict(type='PAGTargetHook', target=dict(type='ClassMean', per_class=32))]
