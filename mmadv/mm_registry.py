"""Registries of scope 'mmadv', one below each of mmseg's.

Configs inherited as ``mmadv::...`` are stamped with that scope, so it must exist. mmadv's own components are
registered in mmseg's registries: there a bare type name finds them from both scopes.
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
