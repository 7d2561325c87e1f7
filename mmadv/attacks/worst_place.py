"""An attack on the worst of several boxes of an image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from mmadv.attacks.attack import Wrapper
from mmadv.attacks.attack_context import AttackContext
from mmadv.attacks.region import Box
from mmadv.attacks.restarts import run_in_turn
from mmadv.attacks.result import AttackOutput
from mmadv.errors import UserError
from mmadv.fields import Positive, Range
from mmadv.registry import ATTACKS

# Multiples of these numbers, less their whole parts, spread evenly over the unit square (Roberts, 2018): they are 1 / p
# and 1 / p^2, where p = 1.3247... solves p^3 = p + 1.
SPREAD = (0.7548776662466927, 0.5698402909980532)


@ATTACKS.register
@dataclass(frozen=True, kw_only=True)
class WorstPlace(Wrapper):
    """Runs an attack inside several boxes of an image, each by itself, and returns the strongest result of each image.

    The first box is in the middle. The others are spread evenly over the image. All of them have the shape of the
    image. An image without a pixel left to flip takes no part in further boxes.

    Args:
        attack: an attack without a region, or its config.
        places: number of boxes.
        share: share of the image's area that a box covers.

    Raises:
        UserError: the attack has a region already, or its threat model cannot have one.
    """

    places: Positive = 9
    share: Annotated[float, Range(0, 1, open_low=True)] = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attack.threat.region is not None:
            raise UserError('WorstPlace: attack has a region already; leave out one of them')
        self.attack.inside(self.boxes()[0])

    @property
    def keeps_strongest(self) -> bool:
        return True

    @property
    def title(self) -> str:
        own = f'worst of {self.places} boxes of {100 * self.share:g} % for {self.attack.title}'
        return super().title if self.label else own

    def boxes(self) -> list[Box]:
        """Returns the boxes, from the middle on."""
        side = math.sqrt(self.share)
        shares = [[(0.5 + n * spread) % 1 for spread in SPREAD] for n in range(self.places)]
        return [Box(top=top * (1 - side), left=left * (1 - side), height=side, width=side) for top, left in shares]

    def run(self, context: AttackContext, start: Tensor | None = None) -> AttackOutput:
        """Returns the strongest result; only the first box uses a given ``start``."""
        inside = {('place', n): self.attack.inside(box) for n, box in enumerate(self.boxes())}
        if start is not None:
            start = inside['place', 0].start_threat.project(start, context.images)
        return run_in_turn(context, inside, start)
