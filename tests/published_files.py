"""Files as SEA's and DDC-AT's authors publish their segmentors, with weights that are made of each key alone.

Keys, sizes and logits of DDC-AT's are those of their code, run once on a CPU in float64. Both of its networks were
built for 21 classes and filled by ``key_made``. The logits are those in eval mode of the first of two images,
``numpy.random.RandomState(0).rand(2, 3, 49, 33)``.
"""

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


def ddcat_shapes(network, num_classes=21, *, rival=False):
    """Returns key -> shape of a file of DDC-AT's authors.

    Args:
        network: 'pspnet' or 'deeplabv3'.
        num_classes: of the classifiers.
        rival: whether the file is of plain adversarial training or of training without defence: no branches, and other
            names of the heads.
    """
    shapes = {}
    for key, shape in json.loads((DATA / f'ddcat_{network}_voc.json').read_text())['keys'].items():
        head, _, rest = key.partition('.')
        if rest.startswith('4.') and head in ('cls1', 'cls2', 'aux_cls1'):
            shape = [num_classes, *shape[1:]]
        if rival and head in ('cls2', 'mask1'):
            continue
        if rival:
            key = key.replace('aux_cls1.', 'aux.').replace('cls1.', 'cls.')
        shapes[key] = tuple(shape)
    return shapes


def ddcat_weights(network, num_classes=21, *, rival=False):
    """Returns the weights of a file of DDC-AT's authors, zeros that take no memory."""
    shapes = ddcat_shapes(network, num_classes, rival=rival)
    return {f'module.{key}': torch.zeros(()).expand(shape) for key, shape in shapes.items()}


def semseg_backbone():
    """Returns the weights of the ImageNet ResNet that the authors start from: the trunk's, with other names."""
    names = {'0': 'conv1', '1': 'bn1', '3': 'conv2', '4': 'bn2', '6': 'conv3', '7': 'bn3'}
    weights = {}
    for key, value in ddcat_weights('pspnet').items():
        key = key.removeprefix('module.')
        if key.startswith('layer0.'):
            weights[f'{names[key[7]]}{key[8:]}'] = value
        elif key.startswith('layer'):
            weights[key] = value
    return weights | {'fc.weight': torch.zeros(1000, 2048), 'fc.bias': torch.zeros(1000)}


def stored_step():
    """Returns the losses of a training step of DDC-AT's PSPNet in its authors' code, and what it depends on.

    Their network is filled by ``key_made``, without dropout. The biases of the three classifiers are stored: with them
    the mean logits of the clean images are zero. With r = RandomState(0), the clean images are
    a = r.rand(2, 3, 49, 33), the adversarial ones (a + r.rand(2, 3, 49, 33)[::-1]) / 2, and the labels
    r.randint(0, 21, (2, 49, 33)), the first five rows void. The boundary map is where their divided predictions in eval
    mode differ; ``boundary`` counts it on the first image. The losses are those in train mode of the first clean and
    the second adversarial image.
    """
    return dict(np.load(DATA / 'ddcat_pspnet_step.npz'))


def stored_logits(name):
    """Returns the logits of the published code, float64.

    Of every fourth row and column, for the networks of DDC-AT at 49x33 and for UPerNet at 96x64. For Segmenter of every
    64th row and column at 512x512: every fourth of the 32 by 32 that were published, to keep the file small.
    """
    return torch.from_numpy(np.load(DATA / f'{name}.npz')['logits'])
