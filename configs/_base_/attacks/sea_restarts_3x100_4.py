# SEA's four losses with three random restarts of 100 iterations at one radius: the restart arm of figures 2 to 4.
attack = dict(
    type='WorstCase',
    label='SEA without red-ε (3 x {steps} iterations)',
    attacks={
        name: dict(
            type='Restarts',
            restarts=3,
            attack=dict(type='APGD', threat=dict(type='Linf', radius='4/255'), steps=100, objective=dict(type=loss)),
        )
        for name, loss in dict(
            masked_ce='MaskedCrossEntropy',
            balanced_ce='BalancedCrossEntropy',
            js='JensenShannon',
            masked_spherical='MaskedSpherical',
        ).items()
    },
)
