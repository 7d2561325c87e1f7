"""Adds your own objective and attacks with it: python examples/own_objective.py.

An attack maximises an objective for each pixel. Here the objective is the margin by which the labelled class loses.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmadv.attacks import Objective
from mmadv.registry import ATTACKS, OBJECTIVES, build


@OBJECTIVES.register
@dataclass(frozen=True, kw_only=True)
class ClippedMargin(Objective):
    """min(max_{i≠y} u_i - u_y, limit): pixels that are wrong by more than the limit no longer contribute.

    Args:
        limit: largest value of the objective, in units of the logits.
    """

    limit: float = 1.0

    def _loss(self, scores, progress: float) -> Tensor:
        """Returns the (N, H, W) objective; its gradient comes from automatic differentiation."""
        return (scores.rival_logit - scores.label_logit).clamp(max=self.limit)


def main() -> None:
    """Prints the accuracy of a random network under PGD with this objective, and with the cross-entropy."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 3, padding=1))
    images = torch.rand(4, 3, 32, 32)
    labels = model(images).argmax(1)
    for objective in ('CrossEntropy', 'ClippedMargin'):
        config = {
            'type': 'PGD',
            'threat': {'type': 'Linf', 'radius': '2/255'},
            'steps': 10,
            'step_size': '0.5/255',
            'objective': {'type': objective},
        }
        # mmadv builds the attack from this dict, as from a config file.
        # PGD(threat=..., objective=ClippedMargin()) is the same.
        attack = build(config, ATTACKS)
        result = attack(model, images, labels)
        print(f'{objective}: accuracy under attack {100 * result.accuracy.mean():.1f} %')


if __name__ == '__main__':
    main()
