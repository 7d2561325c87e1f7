"""The search for the strongest iterate of each image: it keeps the best one, and drops images that are done."""

from __future__ import annotations

import torch
from torch import Tensor

from mmadv.attacks.attack_context import AttackContext, Best
from mmadv.attacks.result import AttackOutput, Evaluation


class Search:
    """The images still under attack, and the strongest iterate seen of every image.

    Args:
        context: its images are the N rows.
        targeted: whether the labels are the classes wanted.

    Attributes:
        context: the images still under attack.
        rows: their positions among all, int64.
    """

    def __init__(self, context: AttackContext, *, targeted: bool) -> None:
        self.context = context
        self.rows = torch.arange(len(context), device=context.images.device)
        self._best = Best(context, targeted=targeted)

    def __len__(self) -> int:
        """Returns how many images are still under attack."""
        return len(self.rows)

    @property
    def strongest(self) -> Tensor:
        """(n, C, h, w), the strongest iterates so far of the images still under attack."""
        return self._best.images[self.rows]

    def take(self, candidates: Tensor, evaluation: Evaluation) -> Tensor:
        """Takes the candidates that are at least as strong as what was seen; returns the images not yet done, (n,)."""
        return self._best.update(self.rows, candidates, evaluation)

    def drop_done(self, undone: Tensor) -> Tensor | None:
        """Drops the images that are done; returns which of the images stay, (n,) bool, None where all do.

        The one point of a step at which the host waits for the device.
        """
        if int(undone.sum()) == len(undone):
            return None
        self.context, self.rows = self.context.restrict(undone), self.rows[undone]
        return undone

    def result(self) -> AttackOutput:
        """Returns the strongest iterate of every image."""
        return self._best.output()
