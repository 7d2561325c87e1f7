"""The search for the strongest iterate of each image. It keeps the best iterate and drops images that are done."""

from __future__ import annotations

import torch
from torch import Tensor

from mmadv.attacks.attack_context import AttackContext, Best
from mmadv.attacks.result import AttackOutput, Evaluation


class Search:
    """The images still under attack, and the strongest iterate so far of every image.

    Args:
        context: its images are the N rows.
        targeted: whether the labels are the target classes.

    Attributes:
        context: the images still under attack.
        rows: positions of the images still under attack among all N images, int64.
    """

    def __init__(self, context: AttackContext, *, targeted: bool) -> None:
        self.context = context
        self.rows = torch.arange(len(context), device=context.images.device)
        self._best = Best(context, targeted=targeted)

    def __len__(self) -> int:
        """Returns the number of images still under attack."""
        return len(self.rows)

    @property
    def strongest(self) -> Tensor:
        """(n, C, h, w), the strongest iterates so far of the images still under attack."""
        return self._best.images[self.rows]

    def take(self, candidates: Tensor, evaluation: Evaluation) -> Tensor:
        """Returns which images are not yet done, (n,) bool, and keeps candidates at least as strong as the best so far.

        Args:
            candidates: (n, C, h, w), one per image still under attack.
            evaluation: the evaluation of the candidates.
        """
        return self._best.update(self.rows, candidates, evaluation)

    def drop_done(self, undone: Tensor) -> Tensor | None:
        """Returns which images stay, (n,) bool, or None if all stay, and drops the images that are done.

        This is the only point of a step at which the host waits for the device.
        """
        if int(undone.sum()) == len(undone):
            return None
        self.context, self.rows = self.context.restrict(undone), self.rows[undone]
        return undone

    def result(self) -> AttackOutput:
        """Returns the strongest iterate of every image."""
        return self._best.output()
