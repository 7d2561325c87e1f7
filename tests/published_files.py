"""Files as SEA's authors publish their segmentors, with weights that are made of each key alone."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import torch

DATA = Path(__file__).parent / 'data' / 'published'


def key_made(key, shape):
    """Returns the weight of a key, float64, as in the run of the published code that gave the stored logits."""
    if key.endswith('num_batches_tracked'):
        return torch.tensor(0)
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], 'little')
    noise = np.random.RandomState(seed).standard_normal(shape)
    if key.endswith('running_var'):
        value = 1 + 0.1 * np.abs(noise)
    elif len(shape) == 1:
        value = 0.1 * noise + (1 if key.rpartition('.')[2] in ('weight', 'gamma') else 0)
    else:
        value = noise / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(value))


def published_shapes(name, num_classes=None):
    """Returns key -> shape of a published file.

    Args:
        name: 'upernet_convnext_t_voc' or 'segmenter_vit_s_ade20k', whose keys are stored, or 'upernet_convnext_s_voc',
            which has 27 blocks in the third stage instead of 9.
        num_classes: instead of the stored 21 or 151.
    """
    stored = name.replace('convnext_s', 'convnext_t')
    shapes = {key: tuple(shape) for key, shape in json.loads((DATA / f'{stored}.json').read_text())['keys'].items()}
    if stored != name:
        for key, shape in list(shapes.items()):
            block = re.fullmatch(r'(backbone\.stages\.2\.)8(\..*)', key)
            if block:
                shapes |= {f'{block[1]}{index}{block[2]}': shape for index in range(9, 27)}
    if num_classes is not None:
        for key, shape in shapes.items():
            if 'classifier' in key:
                shapes[key] = (num_classes, *shape[1:])
            elif key.startswith('decoder.mask_norm'):
                shapes[key] = (num_classes,)
            elif key == 'decoder.cls_emb':
                shapes[key] = (1, num_classes, shape[2])
    return shapes


def stored_logits(name):
    """Returns the logits of the published code, float64.

    For UPerNet of every fourth row and column at 96x64. For Segmenter of every 64th row and column at 512x512: every
    fourth of the 32 by 32 that were published, to keep the file small.
    """
    return torch.from_numpy(np.load(DATA / f'{name}.npz')['logits'])
