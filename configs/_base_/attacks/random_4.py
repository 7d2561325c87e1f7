# Each image gets one of FGSM, three steps of PGD and Fast Newton, all at 4/255; PGD attacks half of the images.
attack = dict(
    type='RandomChoice',
    attacks=dict(
        fgsm=dict(type='FGSM', threat=dict(type='Linf', radius='4/255')),
        pgd=dict(type='PGD', threat=dict(type='Linf', radius='4/255'), steps=3, step_size=0.01),
        newton=dict(type='FastNewton', max_radius='4/255'),
    ),
    weights=dict(fgsm=1, pgd=2, newton=1),
)
