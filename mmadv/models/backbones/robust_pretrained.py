"""RobustPretrained, the strict initialisation of a backbone or a segmentor from a public checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule, update_init_info
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import nn

from mmadv.checkpoints.contents import convention_of, record_of, weights_of
from mmadv.checkpoints.conventions import convention
from mmadv.checkpoints.families import SOURCES, Source, converted
from mmadv.checkpoints.families import source as find_source
from mmadv.checkpoints.matching import MatchReport, match
from mmadv.errors import UserError
from mmadv.fields import checked
from mmadv.models.backbones.architectures import fresh_parameters, shapes_of
from mmadv.models.backbones.conversion import read
from mmadv.models.backbones.input_convention import check_preprocessor, preprocessor_of


@WEIGHT_INITIALIZERS.register_module()
@checked
class RobustPretrained:
    """Loads all of a classifier's weights into a backbone, and checks their input convention.

    The class is for the ``init_cfg`` of a backbone, or of a segmentor if the file holds a whole segmentor. It differs
    from mmengine's ``Pretrained`` in four ways. It renames a public checkpoint's keys itself. It accepts no gap. It
    runs no code that the file may hold. It raises UserError if the data preprocessor contradicts the normalisation
    with which the weights were trained.

    Args:
        checkpoint: a file, as published or as written by ``mmadv convert``.
        source: the family of a published file, a key of ``mmadv.checkpoints.families.SOURCES``; None for a converted
            file, which records its family.
        input_convention: overrules the mean and std that the file and the source state.

    Raises:
        UserError: the source or the convention is unknown.
    """

    def __init__(self, checkpoint: str, source: str | None = None, input_convention: str | None = None) -> None:
        self.checkpoint = str(checkpoint)
        self.source = None if source is None else find_source(source)
        self.input_convention = None if input_convention is None else convention(input_convention).name

    def __call__(self, module: nn.Module) -> None:
        """Loads the weights into a backbone or a segmentor.

        Raises:
            UserError: the checkpoint cannot be read or does not fit, or the input conventions contradict each other.
        """
        self._check_order(module)
        checkpoint = read(self.checkpoint, trust=False)
        family, recorded = self._family_of(checkpoint)
        weights = weights_of(checkpoint, self.checkpoint)
        name: str | None
        if recorded is not None and self.input_convention is None:
            name, who = recorded, 'as it records'
        else:
            name, who = convention_of(weights, family, self.input_convention, self.checkpoint)
        self._check_convention(module, name, who)
        report = match(
            weights,
            family.map_key,
            shapes_of(module),
            fresh=fresh_parameters(module),
            grid=getattr(_backbone_of(module), 'grid_size', None),
        )
        report.require_complete(self.checkpoint, type(module).__name__)
        _fill(module, report)
        print_log(f'{type(module).__name__} initialised from {self.checkpoint}: {report.summary()}', logger='current')
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=f'RobustPretrained: load from {self.checkpoint}')

    def _family_of(self, checkpoint: Mapping[str, Any]) -> tuple[Source, str | None]:
        """Returns the family of a file, and the input convention that a converted file records."""
        record = record_of(checkpoint)
        if record is None:
            if self.source is None:
                raise UserError(
                    f'init_cfg.source is missing, and {self.checkpoint} was not written by '
                    f'mmadv convert; name the family that it belongs to, one of {", ".join(SOURCES)}'
                )
            return self.source, None
        origin = find_source(str(record.get('source')))
        if self.source is not None and self.source.name != origin.name:
            raise UserError(
                f"{self.checkpoint} was converted from the source '{origin.name}', but init_cfg.source is "
                f"'{self.source.name}'; leave it out"
            )
        return dataclasses.replace(origin, map_key=converted), record.get('input_convention')

    def _check_convention(self, module: nn.Module, name: str | None, who: str) -> None:
        backbone = _backbone_of(module)
        stated: Any = getattr(backbone, 'input_convention', None)
        if name is None and stated is None:
            raise UserError(
                f'nothing says which mean and std the weights in {self.checkpoint} were trained with; state '
                "input_convention in the backbone ('unit', 'imagenet' or 'inception')"
            )
        if name is not None and stated is not None and name != stated:
            raise UserError(
                f"model.backbone.input_convention is '{stated}', but the weights in {self.checkpoint} take '{name}' "
                f'inputs, {who}; make input_convention and data_preprocessor ({convention(name).settings()}) agree '
                'with them'
            )
        preprocessor = preprocessor_of(backbone)
        if preprocessor is not None:
            name = name or stated
            check_preprocessor(preprocessor, name, f"the weights in {self.checkpoint} take '{name}' inputs, {who}")

    def _check_order(self, module: nn.Module) -> None:
        """Raises UserError if an initialiser follows this one, because it would overwrite the loaded weights."""
        configs = getattr(module, 'init_cfg', None)
        kinds = [config.get('type') for config in configs] if isinstance(configs, list) else []
        own = [kind in ('RobustPretrained', type(self)) for kind in kinds]
        if any(own) and not own[-1]:
            raise UserError('RobustPretrained must be the last of the init_cfg, or the others overwrite its weights')


def _backbone_of(module: nn.Module) -> nn.Module:
    """Returns the backbone of a segmentor; a backbone is returned as it is."""
    return getattr(module, 'backbone', module)


def _fill(module: nn.Module, report: MatchReport) -> None:
    own = module.state_dict()
    with torch.no_grad():
        for key, value in report.weights.items():
            own[key].copy_(value)
    # mmengine would initialise the submodules next. This flag tells it that they are initialised already.
    for child in module.modules():
        if isinstance(child, BaseModule) and child is not module:
            child.is_init = True
