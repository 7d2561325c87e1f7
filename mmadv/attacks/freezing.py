"""Freezes attacked models: finds the modules behind any callable, puts them into eval mode and restores them."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# The search for modules follows at most DEPTH references from a callable and visits at most MOST objects.
DEPTH = 5
MOST = 5000
# Objects of these types hold no module, or hold only modules that no model runs.
SKIPPED = (type, types.ModuleType, Tensor, np.ndarray, str, bytes, int, float, complex, type(None), torch.Generator)


@contextmanager
def frozen(model: Callable[..., Any]) -> Iterator[None]:
    """Puts a model into eval mode without parameter gradients, and restores every flag at the end.

    The model may also be a function, a method, a partial function or another object. Then this context manager freezes
    the modules that it can find behind the object, and restores their buffers too. It sets flags directly, not through
    ``train()``, which some modules override.
    """
    behind = modules_behind(model)
    own = set(model.modules()) if isinstance(model, nn.Module) else set()
    modules = list(dict.fromkeys(module for root in behind for module in root.modules()))
    training = [(module, module.training) for module in modules]
    parameters = dict.fromkeys(parameter for root in behind for parameter in root.parameters())
    required = [(parameter, parameter.requires_grad) for parameter in parameters]
    others = [buffer for module in modules if module not in own for buffer in module.buffers(recurse=False)]
    buffers = [(buffer, buffer.detach().clone()) for buffer in others]
    try:
        for module, _ in training:
            module.training = False
        for parameter, _ in required:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, flag in training:
            module.training = flag
        for parameter, flag in required:
            parameter.requires_grad_(flag)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


def modules_behind(model: Callable[..., Any]) -> list[nn.Module]:
    """Returns the modules that a callable may run, without the modules inside them.

    The search covers closures, defaults, globals that the code names, ``__self__`` of a method, the parts of
    ``functools.partial``, and the attributes of an object.

    >>> net = nn.Linear(1, 1)
    >>> modules_behind(net) == modules_behind(net.forward) == modules_behind(lambda x: 2 * net(x)) == [net]
    True
    """
    modules: list[nn.Module] = []
    seen: set[int] = set()
    waiting: list[tuple[Any, int]] = [(model, 0)]
    while waiting and len(seen) < MOST:
        value, depth = waiting.pop(0)
        if id(value) in seen or isinstance(value, SKIPPED):
            continue
        seen.add(id(value))
        if isinstance(value, nn.Module):
            modules.append(value)
            if value is not model:
                continue
        if depth < DEPTH:
            waiting += [(part, depth + 1) for part in _parts(value)]
    inside = {id(module) for root in modules for module in root.modules() if module is not root}
    return [module for module in modules if id(module) not in inside]


def _parts(value: Any) -> Iterator[Any]:
    """Yields the objects that a callable or container refers to, one level deep."""
    if isinstance(value, nn.Module):
        # Registered modules are in modules() already, so only other attributes are searched.
        registered = ('_modules', '_parameters', '_buffers')
        yield from (part for name, part in vars(value).items() if name not in registered and 'hooks' not in name)
        yield getattr(type(value), 'forward', None)
    elif isinstance(value, functools.partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, types.MethodType):
        yield from (value.__self__, value.__func__)
    elif isinstance(value, types.FunctionType):
        yield from _parts_of_function(value)
    elif isinstance(value, Mapping):
        yield from list(value.values())[:MOST]
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from list(value)[:MOST]
    else:
        yield from getattr(value, '__dict__', {}).values()
        slots = [name for kind in type(value).__mro__ for name in getattr(kind, '__slots__', ())]
        yield from (getattr(value, name, None) for name in slots if isinstance(name, str) and name != '__dict__')
        yield getattr(type(value), '__call__', None)  # noqa: B004


def _parts_of_function(function: types.FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a variable that has no value yet
            continue
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    yield from vars(function).values()  # __wrapped__ of a decorated function
    if (function.__module__ or '').partition('.')[0] != 'torch':
        yield from (function.__globals__[name] for name in _names(function.__code__) if name in function.__globals__)


def _names(code: types.CodeType) -> set[str]:
    """Returns the names of the globals and attributes that a function and its inner functions use."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _names(constant)
    return names
