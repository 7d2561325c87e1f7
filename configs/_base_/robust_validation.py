# Validation on 100 images, clean and under three steps of PGD at 4/255. The most robust weights are kept, and
# TensorBoard draws both curves.
robust_validation = dict(
    val_cfg=dict(
        type='AttackValLoop',
        attack=dict(
            type='PGD', threat=dict(type='Linf', radius='4/255'), steps=3, step_size='2/255', keep='lowest_accuracy'
        ),
        limit=100,
    ),
    default_hooks=dict(checkpoint=dict(save_best='robust/mIoU', rule='greater')),
    visualizer=dict(vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]),
)
