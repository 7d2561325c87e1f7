"""Compares forms of aligned gradients for a segmentor with plain and adversarial training, on digit scenes of 32x32.

    python benchmarks/pag_scenes.py [--seeds 0 1 2] [--methods plain regions] [--stored]

The scenes are the demo's at half size, and the network is small and without batch norms, so that a seed takes minutes.
Methods with a record in benchmarks/results/pag_scenes.json do not run again. Writes the section of
docs/evidence_gradients.md and docs/images/pag_scenes.png.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np
import torch
from pag_study import Method, Study
from torch import Tensor

from mmadv.datasets.digit_scenes import draw_scene

LENGTHS = {'train': 4000, 'val': 48}
SIDE = 32


@functools.cache
def scenes(split: str) -> tuple[Tensor, Tensor]:
    """Returns scenes of 32x32: (N, 3, 32, 32) uint8, and labels (N, 32, 32).

    A pixel stands for four of the demo's scene. It has a digit's class if at least two of them have.
    """
    images, labels = [], []
    for index in range(LENGTHS[split]):
        image, label = draw_scene(split, index)
        fourth = np.stack([label[row::2, column::2] for row in (0, 1) for column in (0, 1)])
        small = np.zeros((SIDE, SIDE), np.int64)
        for k in np.unique(label)[1:]:
            small[(fourth == k).sum(0) >= 2] = k
        images.append(cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA).transpose(2, 0, 1))
        labels.append(small)
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels))


STUDY = Study(
    name='pag_scenes',
    data=scenes,
    classes=11,
    methods={
        'plain': Method('plain'),
        'adversarial': Method('adversarial'),
        'regions': Method('regions', 0.5),
        'regions, teacher': Method('teacher', 0.5),
        'whole image': Method('whole image', 0.3),
    },
    attacks={'Linf': ('Linf', '6/255'), 'L2': ('L2', '0.5')},
    pictured=('plain', 'regions', 'regions, teacher'),
    painting=6.0,
    start_steps=700,
    steps=600,
    stride=2,
    region_side=16,
)

if __name__ == '__main__':
    STUDY.main(__doc__.splitlines()[0])
