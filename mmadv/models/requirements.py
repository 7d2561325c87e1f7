"""Packages that some of mmseg's models need, and that mmadv does not install."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from mmadv.errors import UserError


class MissingPackageError(UserError):
    """A model needs a package that is not installed."""


# Module -> how a user gets it.
REMEDIES = {
    'mmdet': "onedl-mmdetection (pip install 'mmadv[mmdet]')",
    'mmpretrain': "onedl-mmpretrain (pip install 'mmadv[mmpretrain]')",
    'mmcv._ext': "mmcv's compiled ops (the onedl-mmcv of PyPI has none; docs/installation.md says how to compile them)",
}
# Type of a part of a model -> the modules that it needs. mmdet imports the ops.
NEEDS = {
    **dict.fromkeys(('Mask2FormerHead', 'MaskFormerHead'), ('mmdet', 'mmcv._ext')),
    **dict.fromkeys(('CCHead', 'PSAHead', 'PointHead', 'SideAdapterCLIPHead', 'DCN', 'DCNv2'), ('mmcv._ext',)),
}
# Scope of a type, as in 'mmpretrain.PoolFormer' -> the modules that it needs.
SCOPES = {'mmdet': ('mmdet', 'mmcv._ext'), 'mmpretrain': ('mmpretrain',)}


def check_requirements(model: Any, where: str = 'model') -> None:
    """Checks that a model segments and that the packages of all its parts are installed.

    Args:
        model: the settings of a segmentor.
        where: path of these settings, for the message.

    Raises:
        MissingPackageError: a part needs a package that is not installed; the message says how to install it.
        UserError: the model does not segment.
    """
    for path, kind in _types(model, where):
        scope, _, name = kind.rpartition('.')
        if name == 'DepthEstimator':
            raise UserError(f'{path}: a DepthEstimator estimates depth; mmadv takes models that segment')
        needed = (*NEEDS.get(name, ()), *SCOPES.get(scope.partition('.')[0], ()))
        missing = [REMEDIES[module] for module in dict.fromkeys(needed) if not is_installed(module)]
        if missing:
            raise MissingPackageError(f'{path}: {name} needs {" and ".join(missing)}; install what is missing')


def import_sentence(error: ImportError) -> str:
    """Returns which module a config could not import, and what to do, for an error of mmengine's ``custom_imports``."""
    while str(error).startswith('Failed to import'):
        cause = error.__cause__ or error.__context__
        if not isinstance(cause, ImportError):
            break
        error = cause
    remedy = REMEDIES.get(error.name or '')
    advice = f'install {remedy}' if remedy else 'install it, or add its folder to PYTHONPATH'
    line, *_ = str(error).splitlines() or ['an import failed']
    return f'{line}; {advice}'


def is_installed(module: str) -> bool:
    """Returns whether a module could be imported; of a package's module, the package is imported."""
    parent = module.rpartition('.')[0]
    return (not parent or is_installed(parent)) and find_spec(module) is not None


def _types(value: Any, where: str) -> Iterator[tuple[str, str]]:
    """Yields path and type of every typed dict in settings."""
    if isinstance(value, (list, tuple)):
        for number, part in enumerate(value):
            yield from _types(part, f'{where}.{number}')
    elif isinstance(value, Mapping):
        kind = value.get('type')
        if kind is not None:
            yield where, kind if isinstance(kind, str) else getattr(kind, '__name__', '')
        for key, part in value.items():
            yield from _types(part, f'{where}.{key}')
