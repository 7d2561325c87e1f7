"""Log-scores: logits for segmentors whose outputs are class scores; and checks of a segmentor's outputs."""

from __future__ import annotations

import torch
from mmseg.models.decode_heads import Mask2FormerHead, MaskFormerHead, SideAdapterCLIPHead
from torch import Tensor, nn

from mmadv.attacks.checks import are_probabilities
from mmadv.errors import UserError

# The outputs of these heads are sums over queries of class probability times mask probability. Any other head with
# such outputs states them by the attribute ``gives_scores = True``.
SCORE_HEADS = (Mask2FormerHead, MaskFormerHead, SideAdapterCLIPHead)


def gives_scores(head: nn.Module) -> bool:
    """Returns whether a decode head returns class scores s >= 0 instead of logits."""
    return isinstance(head, SCORE_HEADS) or getattr(head, 'gives_scores', False) is True


def head_name(head: nn.Module) -> str:
    """Returns the name of a decode head: the name of its class, or of the network that it represents."""
    return getattr(head, 'network_name', None) or type(head).__name__


def log_scores(scores: Tensor) -> Tensor:
    """Returns u = log(s / max s + tiny): logits with the arg max of the scores, and softmax(u) = s / Σs.

    The maximum is taken over the classes of a pixel. The division by the maximum shifts the logits of a pixel by one
    number. The shift changes no softmax and no difference of logits. The division keeps the arg max exact. The
    logarithm alone rounds scores that differ in their last bits to one number. A quotient below 1 never rounds to 1.
    ``tiny`` is the square root of the smallest normal number of the scores' type, so that no gradient overflows.

    Args:
        scores: class scores (N, K, H, W) >= 0.
    """
    tiny = torch.finfo(scores.dtype).tiny ** 0.5
    largest = scores.amax(1, keepdim=True).clamp_min(tiny)
    return (scores / largest + tiny).log()


def check_outputs(outputs: Tensor, *, scores: bool, channels: int, name: str) -> None:
    """Raises UserError if outputs are not of the kind that attacks expect.

    Args:
        outputs: the outputs of a segmentor.
        scores: whether the outputs should be class scores; otherwise they should be logits.
        channels: the number of channels that the outputs must have.
        name: the name of the segmentor or head.
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
