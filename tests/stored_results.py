"""The content of a results.json, made by hand."""


def metrics(value, **more):
    return {
        **dict.fromkeys(('aAcc', 'aAcc_image_mean', 'mAcc', 'mIoU'), value),
        'IoU': [value, None],
        'Acc': [value, None],
        'images': 2,
        'pixels': 8,
        **more,
    }


def content(scale=1.0, seed=0):
    """The content of a results.json, as an earlier version wrote it."""
    passes = {kind: {'total': 10, 'mean_per_image': 5.0} for kind in ('forward', 'backward')}
    attacked = {
        radius: {
            'worst_case': metrics(scale * value, mIoU_greedy=scale * value / 2),
            'members': {'js': metrics(scale * value + 0.01), 'masked_ce': metrics(scale * value)},
            'wins': {'js': {'worst': 1, 'alone': 0}, 'masked_ce': {'worst': 2, 'alone': 1}},
            'passes': passes,
        }
        for radius, value in (('4/255', 0.5), ('8/255', 0.25))
    }
    return {
        'created': '2024-01-01T00:00:00+00:00',
        'command': 'mmadv test c.py w.pth --attack sea --eps 4/255 8/255',
        'config': {'file': 'c.py', 'text': 'model = dict(type="<Net>")'},
        'checkpoint': {'file': 'w.pth', 'sha256': 'abc'},
        'attack': {'name': 'sea', 'title': 'SEA (paper: 4 losses)', 'parameters': {'type': 'WorstCase'}},
        'radii': [{'text': '4/255', 'value': 4 / 255}, {'text': '8/255', 'value': 8 / 255}],
        'seed': seed,
        'batch_size': 1,
        'dataset': {'type': 'Some', 'size': 2, 'limit': None, 'palette': [[0, 0, 0], [255, 0, 0]]},
        'versions': {'mmadv': '1'},
        'hardware': {'processor': 'p'},
        'seconds': {'total': 1.5},
        'evaluation': {
            'title': 'SEA (paper: 4 losses)',
            'ignore_index': 255,
            'classes': ['sky', 'road & path'],
            'images': 2,
            'excluded': ['void.png'],
            'clean': metrics(0.9),
            'intervals': {'clean': {'aAcc': [0.85, 0.925], 'mIoU': None}, '4/255': None},
            'attacked': attacked,
        },
        'pictures': [
            {'file': 'pictures/00000.png', 'index': 0, 'image': 'a.png'},
            {'file': 'pictures/00001.png', 'index': 1, 'image': 'b.png', 'kind': 'least robust'},
        ],
    }


def certificates():
    """The content of a certificates.json, as version 0.2 wrote it."""
    return {
        'schema': 'mmadv/certificates',
        'schema_version': 1,
        'created': '2024-01-01T00:00:00+00:00',
        'command': 'mmadv certify c.py w.pth --sigma 0.25',
        'config': {'file': 'c.py', 'text': 'model = dict(type="<Net>")'},
        'checkpoint': {'file': 'w.pth', 'sha256': 'abc'},
        'smoothing': {
            'sigma': 0.25,
            'n0': 10,
            'n': 100,
            'alpha': 0.001,
            'taus': [0.75],
            'kind': 'hard',
            'bound': 'clopper-pearson',
            'correction': 'holm',
        },
        'seed': 0,
        'dataset': {'type': 'Some', 'size': 2, 'limit': None},
        'classes': ['sky', 'road & path'],
        'versions': {'mmadv': '0.2.0'},
        'hardware': {'processor': 'p'},
        'seconds': {'total': 1.5, 'sampling': 1.0},
        'pictures': [{'file': 'pictures/00000.png', 'image': 'a.png', 'index': 0}],
        'smoothed': {'aAcc': 0.875, 'mIoU': 0.75},
        'certified': [
            {
                'tau': 0.75,
                'radius': 0.16862243754902046,
                'certified_accuracy': 0.8125,
                'certified_mIoU': 0.5,
                'guaranteed_mIoU': 0.25,
                'abstained': 0.125,
                'IoU': [0.5, None],
            }
        ],
        'per_image': [
            {'image': 'a.png', 'valid_pixels': 16, 'certified_accuracy': [0.8125]},
            {'image': 'void.png', 'valid_pixels': 0, 'certified_accuracy': [None]},
        ],
    }
