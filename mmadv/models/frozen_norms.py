"""Norms that keep their running statistics in training, so that training and deployment use the same network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from mmadv.errors import UserError


def freeze_norms(model: nn.Module) -> list[str]:
    """Returns the names of all norms in training mode that have running statistics, and puts them into eval mode.

    These norms are batch norms (also synchronised batch norms) and instance norms with ``track_running_stats``. Their
    weights and biases are still trained. Norms without running statistics are the same in training and in eval mode.
    """
    frozen = []
    for name, module in model.named_modules():
        if module.training and isinstance(module, _NormBase) and module.running_mean is not None:
            module.training = False
            frozen.append(name)
    return frozen


def check_statistics(model: nn.Module, names: Sequence[str]) -> None:
    """Checks that norms have seen data: their running statistics differ from those of a new norm.

    Args:
        model: the model that holds the norms.
        names: the names of the norms, as ``freeze_norms`` returns them.

    Raises:
        UserError: a norm has a mean of 0 and a variance of 1 throughout; the message names the first such norm.
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
    """Puts every module into eval mode, with gradients, and restores each module's mode at the end.

    The context sets the flags directly, because some modules override ``train()``.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, mode in modes:
            module.training = mode
