"""Log-scores: logits for segmentors whose outputs are class scores, and the checks of what a segmentor returns."""

from __future__ import annotations

import torch
from mmseg.models.decode_heads import Mask2FormerHead, MaskFormerHead, SideAdapterCLIPHead
from torch import Tensor, nn

from mmadv.attacks.checks import are_probabilities
from mmadv.errors import UserError

# Their outputs are sums over queries of class probability times mask probability. Another head says so by an
# attribute ``gives_scores = True``.
SCORE_HEADS = (Mask2FormerHead, MaskFormerHead, SideAdapterCLIPHead)


def gives_scores(head: nn.Module) -> bool:
    """Returns whether a decode head returns class scores s >= 0 instead of logits."""
    return isinstance(head, SCORE_HEADS) or getattr(head, 'gives_scores', False) is True


def head_name(head: nn.Module) -> str:
    """Returns what to call a decode head: its class, or the network that it stands for."""
    return getattr(head, 'network_name', None) or type(head).__name__


def log_scores(scores: Tensor) -> Tensor:
    """Returns u = log(s / max s + tiny): logits with the arg max of the scores, and softmax(u) = s / Σs.

    The maximum is that of the pixel. Dividing by it shifts the logits of a pixel by one number, which changes no
    softmax and no difference of logits. It keeps the arg max exact: the logarithm alone rounds scores that differ in
    their last bits to one number, while a quotient below 1 never rounds to 1.

    Args:
        scores: (N, K, H, W) >= 0. ``tiny`` is the root of the smallest normal number of their type, so that no
            gradient overflows.
    """
    tiny = torch.finfo(scores.dtype).tiny ** 0.5
    largest = scores.amax(1, keepdim=True).clamp_min(tiny)
    return (scores / largest + tiny).log()


def check_outputs(outputs: Tensor, *, scores: bool, channels: int, name: str) -> None:
    """Raises UserError for outputs that are not what attacks take them for.

    Args:
        outputs: of a segmentor.
        scores: whether they are class scores; else they are logits.
        channels: how many there must be.
        name: of the segmentor or head.
    """
    outputs = outputs.detach()
    if outputs.dim() != 4 or outputs.shape[1] != channels:
        raise UserError(
            f'{name} returned outputs of shape {tuple(outputs.shape)}; they must be (images, {channels} classes, '
            'height, width)'
        )
    if not outputs.is_floating_point():
        raise UserError(f'{name} returned {outputs.dtype} numbers, neither logits nor class scores')
    if scores and bool((outputs < 0).any()):
        raise UserError(
            f'{name} has gives_scores = True, but returned {float(outputs.min()):.3g}: class scores are at least 0'
        )
    if not scores and are_probabilities(outputs):
        raise UserError(
            f'{name} returned probabilities, which sum to 1 at every pixel, not logits; give its decode head the '
            'attribute gives_scores = True, and attacks take their logarithms'
        )
