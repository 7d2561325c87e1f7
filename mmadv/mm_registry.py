"""Registries of scope 'mmadv', one below each of mmseg's.

Configs inherited as ``mmadv::...`` are stamped with that scope, so it must exist. mmadv's own components are
registered in mmseg's registries, where a bare type name finds them from both scopes.
"""

from __future__ import annotations

import mmseg.registry
from mmengine.registry import Registry

REGISTRIES = {
    name: Registry(
        parent.name,
        parent=parent,
        scope='mmadv',
        # A lookup imports its own registry's locations only, then walks up to the parents.
        locations=[*parent._locations, 'mmadv'],
    )
    for name, parent in vars(mmseg.registry).items()
    if isinstance(parent, Registry) and parent.scope == 'mmseg'
}


def adopt_components() -> None:
    """Makes the components that mmadv registered known as ``mmadv.NAME`` within scope 'mmadv' too.

    There a lookup with the scope's own prefix does not walk up to the parents.
    """
    for registry in REGISTRIES.values():
        assert registry.parent is not None
        for name, component in registry.parent.module_dict.items():
            if component.__module__.partition('.')[0] == 'mmadv' and name not in registry.module_dict:
                registry.register_module(name=name, module=component)
