# Figures 7 to 10 of SEA's paper: 300 iterations of red-ε APGD on the masked cross-entropy; --sheet draws them.
attack = dict(
    type='RadiusReduction',
    attack=dict(
        type='APGD',
        threat=dict(type='Linf', radius='4/255'),
        steps=300,
        objective=dict(type='MaskedCrossEntropy'),
    ),
    label='red-ε APGD, masked CE ({steps} steps)',
)
