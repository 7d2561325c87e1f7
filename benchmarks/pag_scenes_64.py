"""Carries the aligned gradients of benchmarks/pag_scenes.py to the demo's digit scenes of 64x64.

    python benchmarks/pag_scenes_64.py [--seeds 0 1 2] [--methods plain regions] [--stored]

The network is that of the small scenes, with a second convolution of stride 2 in its stem. Methods with a record in
benchmarks/results/pag_scenes_64.json do not run again. Writes the section of docs/evidence_gradients.md and
docs/images/pag_scenes_64.png.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from pag_study import Method, Study
from torch import Tensor

from mmadv.datasets.digit_scenes import draw_scene

LENGTHS = {'train': 4000, 'val': 24}


@functools.cache
def scenes(split: str) -> tuple[Tensor, Tensor]:
    """Returns the demo's scenes: (N, 3, 64, 64) uint8, and labels (N, 64, 64)."""
    drawn = [draw_scene(split, index) for index in range(LENGTHS[split])]
    images = np.stack([image.transpose(2, 0, 1) for image, _ in drawn])
    return torch.from_numpy(images), torch.from_numpy(np.stack([label for _, label in drawn]).astype(np.int64))


STUDY = Study(
    name='pag_scenes_64',
    data=scenes,
    classes=11,
    methods={
        'plain': Method('plain'),
        'adversarial': Method('adversarial'),
        'regions, λ = 0.3': Method('regions', 0.3),
        'regions, λ = 1': Method('regions', 1),
        'teacher, λ = 1': Method('teacher', 1),
    },
    attacks={'Linf': ('Linf', '2/255'), 'L2': ('L2', '1')},
    pictured=('plain', 'regions, λ = 1', 'teacher, λ = 1'),
    painting=12.0,
    start_steps=800,
    steps=600,
    stride=4,
    region_side=32,
)

if __name__ == '__main__':
    STUDY.main(__doc__.splitlines()[0])
