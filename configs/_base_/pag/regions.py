# Gradients that repaint regions: up to four of an image, each by the nearest of 32 exemplars of a random other class.
pag = dict(weight=0.5)
custom_hooks = [dict(type='PAGTargetHook', target=dict(type='RegionExemplars', per_class=32, regions=4))]
