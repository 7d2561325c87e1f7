"""A script that unpickles a checkpoint, runs its code, and writes only its weights: python -I unpickle.py IN OUT.

Run the script in a separate process, and only for a file whose author is trusted: see mmadv.checkpoints.trusted. The
script imports nothing from mmadv.
"""

from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Mapping
from typing import Any

import torch

# A copy of mmadv.checkpoints.contents.HOLDERS, which this script cannot import.
HOLDERS = ('state_dict', 'model', 'model_state_dict')


class Inert:
    """Replaces a class of a package that is not installed, such as an optimizer's or a schedule's class.

    Weights need no such class.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Inert:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> Inert:
        return Inert()

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """Accepts an item of a pickled subclass of list."""

    def extend(self, values: Any) -> None:
        """Accepts items of a pickled subclass of list."""


class Unpickler(pickle.Unpickler):
    """Python's unpickler, which uses Inert for each class that cannot be imported."""

    def find_class(self, module: str, name: str) -> Any:
        """Returns the class or function with this name; ``Inert`` if it cannot be imported."""
        try:
            return super().find_class(module, name)
        except (ImportError, AttributeError):
            return Inert


def unpickle(path: str) -> dict[str, torch.Tensor]:
    """Returns the weights in a pickled checkpoint.

    Raises:
        ValueError: the checkpoint holds no weights.
    """
    module: Any = types.ModuleType('lenient_pickle')
    module.__dict__.update(vars(pickle))
    module.Unpickler = Unpickler
    module.load = lambda file, **options: Unpickler(file, **options).load()
    checkpoint = torch.load(path, map_location='cpu', pickle_module=module, weights_only=False)
    if isinstance(checkpoint, torch.nn.Module):
        checkpoint = checkpoint.state_dict()
    if not isinstance(checkpoint, Mapping):
        raise ValueError(f'it holds a {type(checkpoint).__name__}, no dict of weights')
    for key in HOLDERS:
        if isinstance(checkpoint.get(key), torch.nn.Module):
            checkpoint = checkpoint[key].state_dict()
            break
        if isinstance(checkpoint.get(key), Mapping):
            checkpoint = checkpoint[key]
            break
    weights = {str(key): value.detach() for key, value in checkpoint.items() if isinstance(value, torch.Tensor)}
    others = [str(key) for key in checkpoint if str(key) not in weights]
    if not weights or others:
        raise ValueError(f'no tensor is under {", ".join(others[:5]) or "any key"}')
    return {key: value.as_subclass(torch.Tensor).clone() for key, value in weights.items()}


if __name__ == '__main__':
    try:
        torch.save({'state_dict': unpickle(sys.argv[1])}, sys.argv[2])
    except Exception as error:
        message = ' '.join(str(error).split())
        print(f'{type(error).__name__}: {message}', file=sys.stderr)
        sys.exit(1)
