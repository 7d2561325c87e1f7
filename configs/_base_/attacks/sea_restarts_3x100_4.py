# SEA's four losses with three random restarts of 100 iterations at one radius: the restart arm of figures 2 to 4.
_base_ = './sea_constant_radius_100_4.py'
attack = dict(
    _delete_=True,
    type='WorstCase',
    label='SEA without red-ε (3 x {steps} iterations)',
    attacks={
        name: dict(
            type='Restarts',
            restarts=3,
            attack=dict(type='APGD', threat=dict(type='Linf', radius='4/255'), steps=100, objective=dict(type=loss)),
        )
        for name, loss in _base_.sea_losses.items()
    },
)
