# Table 1 of SEA's paper: CosPGD and SegPGD with 300 steps, the step sizes of appendix B.1 and the iterate of highest
# loss, beside SEA's four losses with 300 iterations of red-ε APGD. SEA is the worst case of the last four
# (mmadv report --components). Only at the radii of appendix B.1; the other files have rules for any radius.
attack = dict(
    type='WorstCase',
    label='Table 1 of SEA (CosPGD, SegPGD, 4 losses)',
    attacks={
        **{
            name: dict(
                type='ByRadius',
                attacks={
                    radius: dict(
                        type=kind,
                        threat=dict(type='Linf', radius=radius),
                        steps=300,
                        step_size=step_size,
                        keep='best_loss',
                    )
                    for radius, step_size in {'2/255': 2e-3, '4/255': 4e-3, '8/255': 5e-3, '12/255': 6e-3}.items()
                },
            )
            for name, kind in dict(cospgd='CosPGD', segpgd='SegPGD').items()
        },
        **{
            name: dict(
                type='RadiusReduction',
                attack=dict(
                    type='APGD', threat=dict(type='Linf', radius='2/255'), steps=300, objective=dict(type=loss)
                ),
            )
            for name, loss in dict(
                masked_ce='MaskedCrossEntropy',
                balanced_ce='BalancedCrossEntropy',
                js='JensenShannon',
                masked_spherical='MaskedSpherical',
            ).items()
        },
    },
)
