"""The check that a test pipeline gives the same image and label at every read."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmadv.engine.data import leaves
from mmadv.errors import UserError

# Transforms of mmcv and mmseg that draw random numbers, besides those whose name begins with Random.
RANDOM = (
    'PhotoMetricDistortion',
    'BioMedicalGaussianNoise',
    'BioMedicalGaussianBlur',
    'BioMedicalRandomGamma',
    'BioMedical3DRandomFlip',
    'BioMedical3DRandomCrop',
    'Albu',
)


def check_deterministic(dataset: Any, where: str) -> None:
    """Raises UserError if a pipeline draws random numbers, because results would depend on workers and order.

    The error names a transform that is known to draw random numbers. To find other transforms, the function reads the
    first sample twice, with two different seeds.

    Args:
        dataset: a built dataset, in any nesting of wrappers.
        where: the config's key, for error messages.
    """
    for part in leaves(dataset):
        pipeline = getattr(part, 'pipeline', None)
        for transform in _transforms(pipeline):
            if _draws(transform):
                raise UserError(
                    f'{where}: {type(transform).__name__} in its pipeline draws random numbers, so that results would '
                    'depend on workers and order; take it out of the pipeline'
                )
    with _random_states_restored():
        first, second = (_tensors(_seeded(seed, dataset)) for seed in (0, 1))
    if len(first) != len(second) or not all(
        one.shape == other.shape and torch.equal(one, other) for one, other in zip(first, second, strict=True)
    ):
        raise UserError(
            f'{where}: two reads of its first image differ, so its pipeline draws random numbers; remove the random '
            'steps from the pipeline'
        )


def _transforms(pipeline: Any) -> Iterator[Any]:
    """Yields the transforms of a pipeline, including the transforms inside other transforms."""
    parts = getattr(pipeline, 'transforms', None)
    for part in parts if isinstance(parts, (list, tuple)) else [parts] if parts is not None else []:
        if isinstance(part, (list, tuple)):
            for inner in part:
                yield inner
                yield from _transforms(inner)
        else:
            yield part
            yield from _transforms(part)


def _draws(transform: Any) -> bool:
    name = type(transform).__name__
    if not (name.startswith('Random') or name in RANDOM):
        return False
    if name == 'RandomFlip':
        return not (transform.prob in (0, 1, 0.0, 1.0, None) and isinstance(transform.direction, str))
    if name == 'RandomResize':
        one_size = all(isinstance(side, int) for side in transform.scale)
        return not (one_size and tuple(transform.ratio_range or ()) == (1.0, 1.0))
    return getattr(transform, 'prob', None) not in (0, 0.0)


def _seeded(seed: int, dataset: Any) -> Any:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return dataset[0]


def _tensors(sample: Any) -> list[Tensor]:
    """Returns the images and labels of a sample, for all its views."""
    inputs, views = (
        list(value) if isinstance(value, (list, tuple)) else [value]
        for value in (sample['inputs'], sample['data_samples'])
    )
    return [*inputs, *(item.data for view in views for _, item in sorted(view.items()) if hasattr(item, 'data'))]


@contextmanager
def _random_states_restored() -> Iterator[None]:
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
