"""Noise that depends only on seeds, not on batch size, order, device or world size.

Every image has its own seed. Noise is drawn per image on the CPU in float64 and then moved to the image's device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mmadv.errors import UserError
from mmadv.printing import shown

KEYS = (str, int, float, bool, type(None))


def derive_seed(*keys: object) -> int:
    """Returns a seed in [0, 2**63) that is a fixed function of the keys' printed form.

    Raises:
        UserError: a key is not a text, Python number, bool or None. The printed form of other types may differ from
            run to run, or between equal numbers.

    >>> derive_seed(0, 'image.png') == derive_seed(0, 'image.png')
    True
    >>> derive_seed(0, 'restart', 1) == derive_seed(0, 'restart', 2)
    False
    """
    for key in keys:
        if type(key) not in KEYS:
            raise UserError(f'keys of a seed must be texts or Python numbers; found {shown(key)}')
    digest = hashlib.blake2b(repr(keys).encode(), digest_size=8).digest()
    return int.from_bytes(digest, 'little') >> 1


def content_seeds(images: Tensor) -> list[int]:
    """Returns one seed per image of (N, C, H, W), derived from the image's values."""
    flat = images.detach().to('cpu', torch.float32).contiguous()
    return [derive_seed(hashlib.blake2b(image.numpy().tobytes(), digest_size=8).hexdigest()) for image in flat]


def uniform_noise(images: Tensor, seeds: Sequence[int]) -> Tensor:
    """Returns noise like ``images``, uniform on [-1, 1), drawn per image from its seed."""
    return _draw(images, seeds, lambda shape, g: torch.rand(shape, generator=g, dtype=torch.float64) * 2 - 1)


def normal_noise(images: Tensor, seeds: Sequence[int]) -> Tensor:
    """Returns standard normal noise like ``images``, drawn per image from its seed."""
    return _draw(images, seeds, lambda shape, g: torch.randn(shape, generator=g, dtype=torch.float64))


def uniform_scalars(images: Tensor, seeds: Sequence[int]) -> Tensor:
    """Returns one number per image, uniform on [0, 1), as (N, 1, 1, 1) of the images' dtype and device."""
    return uniform_numbers(seeds, 'scalar').to(images).view(-1, 1, 1, 1)


def uniform_numbers(seeds: Sequence[int], *keys: object) -> Tensor:
    """Returns one number per seed, uniform on [0, 1), as (N,) float64 on the CPU; other keys give other numbers."""
    numbers = [
        torch.rand((), generator=torch.Generator().manual_seed(derive_seed(seed, *keys)), dtype=torch.float64)
        for seed in seeds
    ]
    return torch.stack(numbers)


def _draw(images: Tensor, seeds: Sequence[int], draw: Callable[..., Tensor]) -> Tensor:
    shape = images.shape[1:]
    noise = [draw(shape, torch.Generator().manual_seed(int(seed))).to(images.dtype) for seed in seeds]
    return torch.stack(noise).to(images.device)
