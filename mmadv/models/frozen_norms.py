"""Norms that keep their running statistics in training, so that the network which is trained is the deployed one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from mmadv.errors import UserError


def freeze_norms(model: nn.Module) -> list[str]:
    """Puts every norm in training that has running statistics into eval mode, and returns their names.

    These are batch norms, synchronised ones too, and instance norms with ``track_running_stats``. Their weights and
    biases are still trained. Norms without running statistics are the same in training and in eval mode.
    """
    frozen = []
    for name, module in model.named_modules():
        if module.training and isinstance(module, _NormBase) and module.running_mean is not None:
            module.training = False
            frozen.append(name)
    return frozen


def check_statistics(model: nn.Module, names: Sequence[str]) -> None:
    """Checks that norms have seen data: their running statistics are not those that a new norm starts with.

    Args:
        model: that holds the norms.
        names: of the norms, as ``freeze_norms`` returns them.

    Raises:
        UserError: names the first norm with a mean of 0 and a variance of 1 throughout.
    """
    norms: dict[str, Any] = {name: model.get_submodule(name) for name in names}
    new = [name for name, norm in norms.items() if not norm.running_mean.any() and (norm.running_var == 1).all()]
    if new:
        raise UserError(
            f'{type(model).__name__} trains with frozen batch norms, but {len(new)} of {len(norms)} were never trained '
            f"(first: {new[0]}); set load_from to a trained segmentor's checkpoint, or use norms without batch "
            "statistics, such as norm_cfg=dict(type='GN', num_groups=8)"
        )


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Puts every submodule into eval mode, with its gradients, and gives each its own mode back.

    Flags are set directly, not through ``train()``, which some modules override.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, mode in modes:
            module.training = mode
