# SEA's four losses without radius reduction: the const-ε scheme that red-ε is compared with (SEA, section 2.3).
attack = dict(
    type='WorstCase',
    attacks=dict(
        masked_ce=dict(
            type='APGD',
            threat=dict(type='Linf', radius='4/255'),
            steps=100,
            objective=dict(type='MaskedCrossEntropy'),
        ),
        balanced_ce=dict(
            type='APGD',
            threat=dict(type='Linf', radius='4/255'),
            steps=100,
            objective=dict(type='BalancedCrossEntropy'),
        ),
        js=dict(
            type='APGD',
            threat=dict(type='Linf', radius='4/255'),
            steps=100,
            objective=dict(type='JensenShannon'),
        ),
        masked_spherical=dict(
            type='APGD',
            threat=dict(type='Linf', radius='4/255'),
            steps=100,
            objective=dict(type='MaskedSpherical'),
        ),
    ),
)
