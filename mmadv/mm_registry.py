"""Registries of scope 'mmadv', one as a child of each registry of mmseg.

mmengine gives configs inherited as ``mmadv::...`` this scope, so the scope must exist. mmadv registers its components
in mmseg's registries. A bare type name finds them there from both scopes.
"""

from __future__ import annotations

import mmseg.registry
from mmengine.registry import Registry

REGISTRIES = {
    name: Registry(
        parent.name,
        parent=parent,
        scope='mmadv',
        # A lookup imports only the locations of its own registry, and then searches the parents.
        locations=[*parent._locations, 'mmadv'],
    )
    for name, parent in vars(mmseg.registry).items()
    if isinstance(parent, Registry) and parent.scope == 'mmseg'
}


def adopt_components() -> None:
    """Registers mmadv's components in the registries of scope 'mmadv' too, so that ``mmadv.NAME`` works in that scope.

    Within the scope, a lookup with the scope's own prefix does not search the parents.
    """
    for registry in REGISTRIES.values():
        assert registry.parent is not None
        for name, component in registry.parent.module_dict.items():
            if component.__module__.partition('.')[0] == 'mmadv' and name not in registry.module_dict:
                registry.register_module(name=name, module=component)
