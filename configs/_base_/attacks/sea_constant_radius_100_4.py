# SEA's four losses without radius reduction: the const-ε scheme that red-ε is compared with (SEA, section 2.3).
attack = dict(
    type='WorstCase',
    attacks={
        name: dict(type='APGD', threat=dict(type='Linf', radius='4/255'), steps=100, objective=dict(type=loss))
        for name, loss in dict(
            masked_ce='MaskedCrossEntropy',
            balanced_ce='BalancedCrossEntropy',
            js='JensenShannon',
            masked_spherical='MaskedSpherical',
        ).items()
    },
)
