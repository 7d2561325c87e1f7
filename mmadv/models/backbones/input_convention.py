"""A check that a segmentor's data preprocessor normalises images as in the training of its backbone's weights.

The check runs when a segmentor is built, in training and testing, in this project's tools and in mmseg's tools.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

from mmengine.model import ImgDataPreprocessor
from mmseg.models.segmentors import BaseSegmentor
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from mmadv.checkpoints.conventions import convention
from mmadv.checkpoints.families import SOURCES
from mmadv.errors import UserError

# Backbone -> weak reference to the data preprocessor of its segmentor. This dict keeps the reference, because an
# attribute of the backbone would be a submodule, or would prevent pickling.
_PREPROCESSORS: weakref.WeakKeyDictionary[nn.Module, weakref.ref] = weakref.WeakKeyDictionary()


def preprocessor_of(backbone: nn.Module) -> nn.Module | None:
    """Returns the data preprocessor of a backbone's segmentor; None if the backbone was built into no segmentor."""
    reference = _PREPROCESSORS.get(backbone)
    return None if reference is None else reference()


def robust_init_cfg(backbone: nn.Module) -> Mapping[str, Any] | None:
    """Returns the backbone's init_cfg of type RobustPretrained; None if the backbone has none."""
    configs = getattr(backbone, 'init_cfg', None)
    configs = [configs] if isinstance(configs, Mapping) else configs or []
    for config in configs:
        kind = config.get('type')
        if kind == 'RobustPretrained' or getattr(kind, '__name__', None) == 'RobustPretrained':
            return config
    return None


def expected_convention(backbone: nn.Module) -> tuple[str, str] | None:
    """Returns a built backbone's input convention and the setting that states it; None if no setting does."""
    stated = getattr(backbone, 'input_convention', None)
    if stated is not None:
        return stated, f"model.backbone.input_convention is '{stated}'"
    config = robust_init_cfg(backbone)
    if config is None:
        return None
    if config.get('input_convention') is not None:
        return config['input_convention'], f"its init_cfg.input_convention is '{config['input_convention']}'"
    source = SOURCES.get(config.get('source') or '')
    if source is None or source.input_convention is None:
        return None
    return source.input_convention, f"checkpoints of the source '{source.name}' take '{source.input_convention}' inputs"


def check_preprocessor(preprocessor: nn.Module, name: str, because: str) -> None:
    """Raises UserError if a data preprocessor does not normalise by the convention ``name``.

    Args:
        preprocessor: the data preprocessor. The function checks only an ImgDataPreprocessor of mmengine.
        name: the name of the convention.
        because: the setting or file that requires the convention, in words.
    """
    if not isinstance(preprocessor, ImgDataPreprocessor):
        return
    if preprocessor._enable_normalize and preprocessor.mean.is_meta:
        return  # built only for its shapes
    wanted = convention(name)
    if preprocessor._enable_normalize:
        mean, std = (
            [value / 255 for value in getattr(preprocessor, key).flatten().tolist()] for key in ('mean', 'std')
        )
        statistics = 'mean=[{}], std=[{}]'.format(
            *(', '.join(f'{round(255 * value, 3):g}' for value in values) for values in (mean, std))
        )
        if len(mean) == 3 and wanted.agrees(mean, std):
            return
    else:
        statistics = 'no mean and std, so images in [0, 255]'
    raise UserError(
        f'model.data_preprocessor has {statistics}, but {because}: it needs {wanted.settings()}; weights fed otherwise '
        'are not robust'
    )


def _check_segmentor(module: nn.Module, name: str, submodule: nn.Module | None) -> None:
    if name not in ('backbone', 'data_preprocessor') or not isinstance(module, BaseSegmentor):
        return
    parts = {**module._modules, name: submodule}
    backbone, preprocessor = parts.get('backbone'), parts.get('data_preprocessor')
    if backbone is None or preprocessor is None:
        return
    _PREPROCESSORS[backbone] = weakref.ref(preprocessor)
    expected = expected_convention(backbone)
    if expected is not None:
        check_preprocessor(preprocessor, *expected)


register_module_module_registration_hook(_check_segmentor)
