# Aligned gradients: those of repainted regions' scores, as a model trained with five steps of PGD has them.
_base_ = 'pag.py'
custom_hooks = [
    dict(type='ChannelsLastHook'),
    dict(
        type='PAGTargetHook',
        target=dict(
            type='RegionDistillation',
            config='benchmarks/configs/espnet/pgd_5.py',
            checkpoint='work_dirs/cost_of_robustness/pgd_5_0/iter_500.pth',
            per_class=32,
            regions=4,
        ),
        size=(40, 40),
    ),
]
