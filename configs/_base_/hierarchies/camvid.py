# Groups of CamVid's 11 classes for certificates: the categories of Cityscapes, and then what moves and what does not.
hierarchy = [
    dict(
        construction=['building', 'fence'],
        object=['pole', 'signsymbol'],
        flat=['road', 'pavement'],
        human=['pedestrian', 'bicyclist'],
    ),
    dict(
        background=['sky', 'tree', 'building', 'fence', 'pole', 'signsymbol'],
        flat=['road', 'pavement'],
        traffic=['car', 'pedestrian', 'bicyclist'],
    ),
]
