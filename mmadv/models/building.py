"""Building a segmentor from a config, and the settings from which it is built."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS
from torch import nn

from mmadv.errors import UserError
from mmadv.fields import checked
from mmadv.models.adv_data_preprocessor import AdvSegDataPreProcessor
from mmadv.models.requirements import check_requirements
from mmadv.printing import shown

# Alternative settings: a preprocessor that states one of a pair does not inherit the other.
ALTERNATIVES = {
    'size': 'size_divisor',
    'size_divisor': 'size',
    'bgr_to_rgb': 'rgb_to_bgr',
    'rgb_to_bgr': 'bgr_to_rgb',
}


@checked
def build_segmentor(config: Any) -> nn.Module:
    """Returns the segmentor that a config describes, with random weights or the weights of its ``init_cfg``.

    Args:
        config: the whole config, with ``model``, and optionally ``data_preprocessor`` and ``default_scope``.

    Raises:
        UserError: the data preprocessor under ``model`` cannot inherit the settings of the top-level one, or the model
            needs a package that is not installed.
    """
    settings = model_settings(config)
    check_requirements(settings)
    with DefaultScope.overwrite_default_scope(config.get('default_scope') or 'mmseg'):
        return MODELS.build(settings)


@checked
def model_settings(config: Any) -> ConfigDict:
    """Returns the ``model`` of a config with the data preprocessor that applies.

    MMEngine takes a top-level ``data_preprocessor`` only if the model has none. A preprocessor of mmadv under ``model``
    inherits every setting that it does not state itself from the top-level preprocessor. The inherited settings have
    the same effect as if they were stated under ``model``.

    Args:
        config: a config as ``build_segmentor`` takes it; the function does not change it.

    Raises:
        UserError: the preprocessor under ``model`` has no type, or it cannot take a setting of the top-level one.
    """
    own_model = config.get('model') if hasattr(config, 'get') else None
    if not isinstance(own_model, Mapping):
        raise UserError(f"config must be a dict with 'model', the settings of a segmentor; found {shown(own_model)}")
    model = ConfigDict(copy.deepcopy(dict(config['model'])))
    outer, own = config.get('data_preprocessor'), model.get('data_preprocessor')
    if outer is None or isinstance(own, nn.Module):
        return model
    outer = copy.deepcopy(outer)
    if own is None:
        model.data_preprocessor = outer
        return model
    if own.get('type') is None:
        raise UserError(
            'model.data_preprocessor has no type, and MMEngine drops the top-level data_preprocessor where the model '
            "has one; give model.data_preprocessor.type, such as 'AdvSegDataPreProcessor'"
        )
    kind = _preprocessor_class(own, config)
    if kind is not None and issubclass(kind, AdvSegDataPreProcessor) and isinstance(outer, Mapping):
        model.data_preprocessor = {**_inherited(own, outer, kind), **own}
    return model


def _preprocessor_class(settings: Mapping[str, Any], config: Mapping[str, Any]) -> type | None:
    if not isinstance(settings['type'], str):
        return settings['type']
    with DefaultScope.overwrite_default_scope(config.get('default_scope') or 'mmseg'):
        return MODELS.get(settings['type'])


def _inherited(own: Mapping[str, Any], outer: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """Returns the settings of the top-level preprocessor that mmadv's own preprocessor does not state."""
    known = inspect.signature(kind).parameters
    inherited = {}
    for key, value in outer.items():
        if key in ('type', '_scope_') or key in own or ALTERNATIVES.get(key) in own:
            continue
        if key not in known:
            raise UserError(
                f"{own['type']} under model cannot inherit '{key}' of the top-level data_preprocessor, which is a "
                f'{outer.get("type", "data preprocessor without a type")}; it replaces a SegDataPreProcessor'
            )
        inherited[key] = value
    return inherited
