# Gradients of repainted regions' scores, as an adversarially trained teacher has them: the demo's.
pag = dict(weight=0.5)
custom_hooks = [
    dict(
        type='PAGTargetHook',
        target=dict(
            type='RegionDistillation',
            config='configs/demo/pspnet_pgd2_digits.py',
            checkpoint='demo_output/pgd_with_2_steps/training/iter_200.pth',
            per_class=32,
            regions=4,
        ),
        size=(32, 32),
    )
]
