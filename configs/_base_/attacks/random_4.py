# For each image one of FGSM, three steps of PGD and Fast Newton, all at 4/255; half of the images meet PGD.
attack = dict(
    type='RandomChoice',
    attacks=dict(
        fgsm=dict(type='FGSM', threat=dict(type='Linf', radius='4/255')),
        pgd=dict(type='PGD', threat=dict(type='Linf', radius='4/255'), steps=3, step_size=0.01),
        newton=dict(type='FastNewton', max_radius='4/255'),
    ),
    weights=dict(fgsm=1, pgd=2, newton=1),
)
