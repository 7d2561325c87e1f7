"""Results at one radius that start the next: the image found at a smaller radius is inside every larger ball."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mmadv.attacks.result import AttackResult, Candidates, with_candidates


def unsolved(result: AttackResult, *, targeted: bool) -> Tensor:
    """Returns which images have a pixel left to flip, (N,) bool; an image of an ensemble, if a member has one.

    Args:
        result: the result of an attack.
        targeted: whether the labels are the target classes.
    """
    parts = list(result.members.values()) or [result]
    return torch.stack([part.accuracy != float(targeted) for part in parts]).any(0)


def continued(smaller: AttackResult, rows: Tensor, result: AttackResult | None, *, targeted: bool) -> AttackResult:
    """Returns the result of an attack at a larger radius, at which results at a smaller radius are candidates.

    The candidates cost no pass, because their predictions are known. No image is better for the model at the larger
    radius than at the smaller one.

    Args:
        smaller: result of N images at a smaller radius.
        rows: (n,) positions of the images that were attacked at the larger radius. The others keep their images.
        result: result of these n images; None if n is 0.
        targeted: whether the labels are the target classes.
    """
    idle = torch.zeros_like(smaller.forward_passes)
    members = {
        name: continued(member, rows, result and result.members[name], targeted=targeted)
        for name, member in smaller.members.items()
    }
    if result is None:
        return replace(smaller, forward_passes=idle, backward_passes=idle.clone(), members=members)
    known = Candidates(smaller.images[rows], smaller.predictions[rows], smaller.accuracy[rows])
    best = with_candidates(replace(result, members={}), known, targeted=targeted)
    return AttackResult(
        images=smaller.images.index_copy(0, rows, best.images),
        predictions=smaller.predictions.index_copy(0, rows, best.predictions),
        accuracy=smaller.accuracy.index_copy(0, rows, best.accuracy),
        forward_passes=idle.index_copy(0, rows.cpu(), best.forward_passes),
        backward_passes=idle.index_copy(0, rows.cpu(), best.backward_passes),
        members=members,
    )
