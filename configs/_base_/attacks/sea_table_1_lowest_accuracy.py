# The same, but CosPGD and SegPGD keep the iterate of lowest accuracy: stronger than published, and fair beside APGD.
_base_ = './sea_table_1.py'
attack = dict(
    label='Table 1 of SEA, lowest accuracy (CosPGD, SegPGD, 4 losses)',
    attacks={
        name: dict(attacks={radius: dict(keep='lowest_accuracy') for radius in ('2/255', '4/255', '8/255', '12/255')})
        for name in ('cospgd', 'segpgd')
    },
)
