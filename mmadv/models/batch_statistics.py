"""Batch norms of a second forward pass, whose input gradients are differentiated once more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Puts every submodule into eval mode, except batch norms in training, which take the batch's statistics.

    Those do not update their running statistics. Synchronised ones take the statistics of all processes' batches,
    by ``synchronised_batch_norm``. Every module gets its own mode back; parameters keep their gradients.
    """
    modes = [(module, module.training) for module in model.modules()]
    norms = [module for module, training in modes if training and isinstance(module, _BatchNorm)]
    tracking = [norm.track_running_stats for norm in norms]
    synchronised = [norm for norm in norms if isinstance(norm, nn.SyncBatchNorm)]
    try:
        for module, _ in modes:
            module.training = False  # train() is overridden by some
        for norm in norms:
            norm.training, norm.track_running_stats = True, False
        for norm in synchronised:
            norm.forward = partial(synchronised_batch_norm, norm)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for norm, tracked in zip(norms, tracking, strict=True):
            norm.track_running_stats = tracked
        for norm in synchronised:
            vars(norm).pop('forward', None)


def synchronised_batch_norm(norm: nn.SyncBatchNorm, inputs: Tensor) -> Tensor:
    """Returns what a synchronised batch norm in training returns, differentiable any number of times.

    torch's own goes forward and backward through kernels without a derivative of their own. This one is made of sums,
    over the pixels and then over the processes of the norm's group; the derivative of the latter is again such a sum.
    The gradient of a process' scores with respect to its images is therefore that of all processes' scores together,
    as it would be in one process with the whole batch. Running statistics are not touched.

    All processes of the group must call it alike, in the forward pass and in every backward pass through it.

    Args:
        norm: whose weight, bias, ``eps`` and process group count.
        inputs: (N, C, ...), of which N may differ between the processes.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size(norm.process_group) > 1):
        return F.batch_norm(inputs, None, None, norm.weight, norm.bias, True, 0.0, norm.eps)
    axes = [axis for axis in range(inputs.ndim) if axis != 1]
    pixels = inputs.new_full((1,), inputs.numel() // inputs.shape[1])
    totals = _SumOverProcesses.apply(torch.cat([inputs.sum(axes), pixels]), norm.process_group)
    shape = (1, -1, *[1] * (inputs.ndim - 2))
    count = totals[-1].detach()
    centred = inputs - (totals[:-1] / count).view(shape)
    # A second round, since the difference of the mean square and the squared mean cancels in float32.
    variance = _SumOverProcesses.apply(centred.square().sum(axes), norm.process_group) / count
    normalised = centred * torch.rsqrt(variance + norm.eps).view(shape)
    if norm.weight is None:
        return normalised
    return normalised * norm.weight.view(shape) + norm.bias.view(shape)


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over the processes of a group; its derivative is the sum of the gradients over them."""

    @staticmethod
    def forward(ctx, tensor: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        ctx.group = group
        total = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return _SumOverProcesses.apply(gradient, ctx.group), None
