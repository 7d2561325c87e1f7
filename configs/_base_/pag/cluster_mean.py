# Gradients that point to the nearest of the means of four clusters of each class, made of 32 crops.
pag = dict(weight=0.3, classes_per_step=2)
custom_hooks = [dict(type='PAGTargetHook', target=dict(type='NearestClusterMean', per_class=32, clusters=4))]
