"""Random restarts, as a wrapper around an attack."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mmadv.attacks.attack import Attack, Wrapper
from mmadv.attacks.attack_context import AttackContext
from mmadv.attacks.result import AttackOutput, Evaluation
from mmadv.attacks.search import Search
from mmadv.errors import UserError
from mmadv.registry import ATTACKS


@ATTACKS.register
@dataclass(frozen=True, kw_only=True)
class Restarts(Wrapper):
    """Runs a random attack several times and keeps the strongest result of each image.

    An image without a pixel left to flip takes no part in further restarts.

    Args:
        attack: an attack that draws random numbers, or its config.
        restarts: number of runs.
    """

    restarts: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.restarts, bool) or not isinstance(self.restarts, int) or self.restarts < 1:
            raise UserError(f'Restarts: restarts must be a positive integer; found {self.restarts!r}')
        if not self.attack.is_random:
            name = type(self.attack).__name__
            raise UserError(f'Restarts: {name} draws nothing at random, so restarts repeat it; set random_start=True')

    @property
    def keeps_strongest(self) -> bool:
        return True

    def run(self, context: AttackContext, start: Tensor | None = None) -> AttackOutput:
        """Returns the strongest result; only the first run uses a given ``start``."""
        return run_in_turn(context, {('restart', run): self.attack for run in range(self.restarts)}, start)


def run_in_turn(
    context: AttackContext, attacks: Mapping[tuple, Attack], start: Tensor | None, relays: Collection[tuple] = ()
) -> AttackOutput:
    """Returns the strongest result per image of attacks that run in turn.

    Each attack runs on the images that still have a pixel left to flip.

    Args:
        context: the model, images and labels; it counts all passes.
        attacks: keys that derive the seeds of the run -> the attack.
        start: first iterate of the first attack, or None for the attack's own choice.
        relays: keys of the later attacks that start from the strongest result so far, not from their own choice.
    """
    search = Search(context, targeted=next(iter(attacks.values())).targeted)
    parts: dict[str, Tensor] = {}
    for keys, attack in attacks.items():
        part = search.context.reseed(*keys)
        output = attack.run(part, search.strongest if keys in relays else start)
        evaluation = evaluated(output, part)
        search.context.count_passes_of(part)
        reached = torch.full_like(context.valid_pixels, torch.nan, dtype=torch.float64)
        parts[str(keys[-1])] = reached.index_copy(0, search.rows, evaluation.correct / part.valid_pixels.double())
        search.drop_done(search.take(output.images, evaluation))
        if not len(search):
            break
        start = None
    return replace(search.result(), parts=parts)


def evaluated(output: AttackOutput, context: AttackContext) -> Evaluation:
    """Returns the evaluation of an attack's output, computed now if the attack did not compute it."""
    if output.correct is None or output.predictions is None:
        return context.evaluate(output.images)
    return Evaluation(output.correct, output.predictions)
