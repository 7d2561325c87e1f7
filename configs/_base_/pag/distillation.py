# Gradients of an adversarially trained teacher: of the demo, whose work folder the checkpoint is in.
pag = dict(weight=0.3, classes_per_step=2)
custom_hooks = [
    dict(
        type='PAGTargetHook',
        target=dict(
            type='Distillation',
            config='configs/demo/pspnet_pgd2_digits.py',
            checkpoint='demo_output/pgd_with_2_steps/training/iter_200.pth',
        ),
    )
]
