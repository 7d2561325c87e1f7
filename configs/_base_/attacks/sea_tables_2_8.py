# Tables 2 and 8 of SEA's paper: six losses, each with 100 iterations of APGD at one radius, and their worst case.
# Table 8 compares the worst case of all six with that of SEA's four (mmadv report --components).
attack = dict(
    type='WorstCase',
    label='Tables 2 and 8 of SEA (6 losses, {steps} iterations)',
    attacks={
        name: dict(type='APGD', threat=dict(type='Linf', radius='4/255'), steps=100, objective=dict(type=loss))
        for name, loss in dict(
            ce='CrossEntropy',
            cosine_ce='CosineCrossEntropy',
            masked_ce='MaskedCrossEntropy',
            balanced_ce='BalancedCrossEntropy',
            js='JensenShannon',
            masked_spherical='MaskedSpherical',
        ).items()
    },
)
