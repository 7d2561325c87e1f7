"""Results at one radius that serve the next: candidates at larger radii, and the choice of a cascade's parts."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mmadv.attacks.attack import Attack
from mmadv.attacks.cascade import Cascade, only
from mmadv.attacks.result import AttackResult, Candidates, with_candidates

# A part of a cascade stays if it took at least this share of what the strongest part took from the clean accuracy.
LEAD = 0.75


def unsolved(result: AttackResult, *, targeted: bool) -> Tensor:
    """Returns which images have a pixel left to flip, (N,) bool; an image of an ensemble, if a member has one.

    Args:
        result: the result of an attack.
        targeted: whether the labels are the target classes.
    """
    parts = list(result.members.values()) or [result]
    return torch.stack([part.accuracy != float(targeted) for part in parts]).any(0)


def without_passes(result: AttackResult) -> AttackResult:
    """Returns the same result, found without a pass."""
    idle = torch.zeros_like(result.forward_passes)
    members = {name: without_passes(member) for name, member in result.members.items()}
    return replace(result, forward_passes=idle, backward_passes=idle.clone(), members=members)


def strengthened(smaller: AttackResult, rows: Tensor, result: AttackResult, *, targeted: bool) -> AttackResult:
    """Returns results at a larger radius, at which the images found at a smaller radius are candidates.

    The candidates cost no pass, because their predictions are known. No image is better for the model at the larger
    radius than at the smaller one.

    Args:
        smaller: result of N images at a smaller radius.
        rows: (n,) positions of the images that were attacked at the larger radius. The others keep their images.
        result: result of these n images.
        targeted: whether the labels are the target classes.
    """
    known = Candidates(smaller.images[rows], smaller.predictions[rows], smaller.accuracy[rows])
    best = with_candidates(replace(result, members={}), known, targeted=targeted)
    return replace(
        smaller,
        images=smaller.images.index_copy(0, rows, best.images),
        predictions=smaller.predictions.index_copy(0, rows, best.predictions),
        accuracy=smaller.accuracy.index_copy(0, rows, best.accuracy),
        forward_passes=smaller.forward_passes.index_copy(0, rows.cpu(), best.forward_passes),
        backward_passes=smaller.backward_passes.index_copy(0, rows.cpu(), best.backward_passes),
        members={
            name: strengthened(member, rows, result.members[name], targeted=targeted)
            for name, member in smaller.members.items()
        },
    )


def leading(attack: Attack, probe: AttackResult, clean: Tensor, rows: Tensor) -> list[tuple[Attack, Tensor]]:
    """Returns the attacks at a further radius, each with the images that it is for.

    A cascade keeps, for each image, the parts that led at the first radius: those that took at least ``LEAD`` of what
    the strongest part took from the clean accuracy. A part that starts from the strongest result so far always stays.
    Any other attack stays as it is.

    Args:
        attack: the attack at the further radius.
        probe: result of the whole attack at the first radius, for N images.
        clean: (N,) clean accuracy.
        rows: (n,) positions of the images that are attacked.
    """
    if not isinstance(attack, Cascade) or not probe.parts:
        return [(attack, rows)] if len(rows) else []
    sign = -1 if attack.targeted else 1
    nothing = torch.full_like(clean, -torch.inf)
    taken = {name: (sign * (clean - part)).nan_to_num(nan=-torch.inf) for name, part in probe.parts.items()}
    taken = {name: taken.get(name, nothing) for name in attack.attacks if name not in attack.relays}
    strongest = torch.stack(list(taken.values())).amax(0)
    # If no part took anything, nothing is known of their order, and all stay.
    stays = {name: (part >= LEAD * strongest) | (strongest <= 0) for name, part in taken.items()}
    groups: dict[tuple[str, ...], list[int]] = {}
    for row in rows.tolist():
        names = tuple(name for name in attack.attacks if name in attack.relays or bool(stays[name][row]))
        groups.setdefault(names, []).append(row)
    return [(only(attack, names), torch.tensor(chosen, device=rows.device)) for names, chosen in groups.items()]
