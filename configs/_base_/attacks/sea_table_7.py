# Table 7 of SEA's paper: SegPGD and CosPGD beside APGD on their losses, 100 steps each. The step sizes of PGD are those
# of appendix C.1, at its radii alone; PGD keeps the iterate of highest loss, as in appendix B.1.
attack = dict(
    type='WorstCase',
    label='Table 7 of SEA (PGD and APGD on two losses)',
    attacks={
        **{
            name: dict(
                type='ByRadius',
                attacks={
                    radius: dict(
                        type=kind,
                        threat=dict(type='Linf', radius=radius),
                        steps=100,
                        step_size=step_size,
                        keep='best_loss',
                    )
                    for radius, step_size in {'4/255': 5e-3, '8/255': 1e-2, '12/255': 1e-2, '16/255': 1e-2}.items()
                },
            )
            for name, kind in dict(segpgd='SegPGD', cospgd='CosPGD').items()
        },
        **{
            name: dict(type='APGD', threat=dict(type='Linf', radius='4/255'), steps=100, objective=dict(type=loss))
            for name, loss in dict(segapgd='BalancedCrossEntropy', cosapgd='CosineCrossEntropy').items()
        },
    },
)
