# The same, but SegPGD and CosPGD keep the iterate of lowest accuracy: stronger than published, and fair beside APGD.
_base_ = './sea_table_7.py'
attack = dict(
    label='Table 7 of SEA, lowest accuracy (PGD and APGD on two losses)',
    attacks={
        name: dict(attacks={radius: dict(keep='lowest_accuracy') for radius in ('4/255', '8/255', '12/255', '16/255')})
        for name in ('segpgd', 'cospgd')
    },
)
