"""A context that switches off reentrant activation checkpointing for an attack's forward passes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.runner import activation_checkpointing
from torch import nn


@contextmanager
def without_checkpointing(model: nn.Module) -> Iterator[None]:
    """Runs a model's forward passes without recomputation in the backward pass.

    ``torch.autograd.grad`` refuses reentrant checkpoints, which ``with_cp=True`` and mmengine's
    ``activation_checkpointing`` make. An attack needs no gradients of parameters, so it needs less memory anyway.
    """
    flagged: list[Any] = [module for module in model.modules() if getattr(module, 'with_cp', False) is True]
    wrapped: list[tuple[Any, Any]] = [
        (module, module.__dict__['forward'])
        for module in model.modules()
        if getattr(module.__dict__.get('forward'), '__globals__', None) is vars(activation_checkpointing)
    ]
    try:
        for module in flagged:
            module.with_cp = False
        for module, forward in wrapped:
            module.forward = forward.__wrapped__
        yield
    finally:
        for module in flagged:
            module.with_cp = True
        for module, forward in wrapped:
            module.forward = forward
