"""The registries of the parts of attacks, and ``build``, which makes the parts and attacks from nested dicts.

The module is pure Python, so attacks are built the same way with and without the OpenMMLab packages.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from mmadv.errors import UserError, nearest
from mmadv.fields import checked

T = TypeVar('T', bound=Callable[..., Any])


class Registry:
    """A table name -> class (or factory function) for one kind of component.

    Args:
        kind: name of the kind in error messages, in the singular.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Callable[..., Any]] = {}

    def register(self, entry: T) -> T:
        """Registers a class or function under its own name; use as a decorator.

        From then on, every call of the entry checks its arguments against its annotations.
        """
        name = entry.__name__
        if name in self._entries:
            raise ValueError(f'the {self.kind} {name} is registered already')
        self._entries[name] = checked(entry)
        return typing.cast(T, self._entries[name])

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def names(self) -> list[str]:
        """Returns the registered names, sorted."""
        return sorted(self._entries)

    def get(self, name: str) -> Callable[..., Any]:
        """Returns the entry of that name; if there is none, raises UserError with the nearest name."""
        if name not in self._entries:
            raise UserError(f"unknown {self.kind} '{name}'{nearest(name, self._entries)}")
        return self._entries[name]


THREATS = Registry('threat model')
REGIONS = Registry('region')
OBJECTIVES = Registry('objective')
SCHEDULES = Registry('schedule')
ATTACKS = Registry('attack')
PARTS = (THREATS, REGIONS, OBJECTIVES, SCHEDULES, ATTACKS)


def build(config: Any, registry: Registry) -> Any:
    """Returns the component that a config describes, building nested dicts on the way.

    Args:
        config: a mapping with ``type`` (a registered name) and the component's keyword arguments. A built component
            is returned unchanged.
        registry: registry that has the ``type``. The ``type`` of a nested dict may be in any registry.

    Raises:
        UserError: a type is unknown, or an argument is unknown or missing.
    """
    if not isinstance(config, Mapping):
        if isinstance(config, str):
            raise UserError(f"{registry.kind} '{config}' must be a dict with a 'type', or the built component")
        return config
    arguments = dict(config)
    arguments.pop('_scope_', None)
    if not isinstance(arguments.get('type'), str):
        raise UserError(f"a {registry.kind} config needs a 'type'; found the keys {sorted(map(str, arguments))}")
    name = arguments.pop('type')
    entry = registry.get(name)
    built = {key: _build_nested(value) for key, value in arguments.items()}
    known = inspect.signature(entry).parameters
    for key in built:
        if key not in known:
            raise UserError(f"{name} has no argument '{key}'{nearest(key, known)}")
    missing = [
        key for key, parameter in known.items() if parameter.default is inspect.Parameter.empty and key not in built
    ]
    if missing:
        raise UserError(f'{name} needs the argument {", ".join(missing)}')
    return entry(**built)


def _build_nested(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    if 'type' not in value:
        return {key: _build_nested(item) for key, item in value.items()}
    for registry in PARTS:
        if value['type'] in registry:
            return build(value, registry)
    known = [name for registry in PARTS for name in registry.names()]
    raise UserError(f"unknown component '{value['type']}'{nearest(str(value['type']), known)}")
