"""Locations of config files, for ``mmadv.cfg`` and for bases written ``mmseg::...`` and ``mmadv::...``."""

from __future__ import annotations

import importlib.metadata
from importlib.util import find_spec
from pathlib import Path

from mmadv.errors import UserError, nearest


def is_importable(package: str) -> bool:
    """Returns whether a top-level package can be imported, without importing it."""
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # an import hook that blocks the package may raise
        return False


def cfg(path: str) -> str:
    """Returns the absolute path of a config that a package contains.

    Your own config inherits it as ``_base_ = [__import__('mmadv').cfg('demo/x.py')]``. This also works in tools that do
    not import mmadv before they parse the config.

    Args:
        path: path relative to mmadv's folder ``configs``. For another OpenMMLab package, write
            ``'mmseg::pspnet/x.py'``.

    Raises:
        UserError: there is no such config or package. The message names the nearest config.
    """
    package, separator, name = path.rpartition('::')
    package = package if separator else 'mmadv'
    spec = find_spec(package) if package.isidentifier() and is_importable(package) else None
    if spec is None or spec.origin is None:
        raise UserError(f"cannot find the config '{path}': there is no installed package '{package}'")
    root = Path(spec.origin).parent / '.mim' / 'configs'
    file = root / name
    if not file.is_file():
        known = [config.relative_to(root.resolve()).as_posix() for config in root.resolve().rglob('*.py')]
        if not known:
            raise UserError(f'{package} was installed without its configs; there are none in {root}')
        raise UserError(f"{package} has no config '{name}'{nearest(name, known)}")
    return str(file.absolute())


def register_package_names() -> None:
    """Makes mmengine find the configs behind ``mmseg::`` and ``mmadv::``.

    mmengine maps the module mmseg to the distribution 'mmsegmentation' and looks only for that distribution. If another
    distribution provides the module, this function makes mmengine look for the module's own name.
    """
    from mmengine.config.utils import MODULE2PACKAGE

    try:
        importlib.metadata.distribution(MODULE2PACKAGE['mmseg'])
    except importlib.metadata.PackageNotFoundError:
        MODULE2PACKAGE['mmseg'] = 'mmseg'
    MODULE2PACKAGE['mmadv'] = 'mmadv'
