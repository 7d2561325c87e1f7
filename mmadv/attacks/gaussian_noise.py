"""Gaussian noise in place of an attack: an augmentation that does not use the model."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mmadv.attacks.attack import Attack
from mmadv.attacks.attack_context import AttackContext
from mmadv.attacks.checks import check_sigma
from mmadv.attacks.randomness import normal_noise
from mmadv.attacks.result import AttackOutput
from mmadv.attacks.threat import Linf, Threat
from mmadv.errors import UserError
from mmadv.fields import Positive, checked
from mmadv.registry import ATTACKS


class Noise(Attack):
    """Base of attacks that add noise. They are random and untargeted."""

    @property
    def targeted(self) -> bool:
        return False

    @property
    def is_random(self) -> bool:
        return True


@ATTACKS.register
@dataclass(frozen=True, kw_only=True)
class GaussianNoise(Noise):
    """Adds noise from N(0, sigma²) to every value and clips to [0, 1], without a pass of the model.

    It is the baseline for every training with noise. It also trains a model for randomized smoothing (Cohen et al.,
    2019, who do not clip).

    Args:
        sigma: standard deviation in units of images in [0, 1]; positive, at most 1.
    """

    sigma: float

    def __post_init__(self) -> None:
        check_sigma(self.sigma, 'GaussianNoise')
        object.__setattr__(self, 'sigma', float(self.sigma))

    @property
    def threat(self) -> Threat:
        """The whole range of images, because noise has no radius."""
        return Linf(radius=1.0)

    @checked
    def with_threat(self, threat: Threat) -> GaussianNoise:
        """Raises UserError, because noise has no radius."""
        raise UserError(f'GaussianNoise has no radius, so it cannot take {threat}; change sigma')

    @checked
    def with_steps(self, steps: Positive) -> GaussianNoise:
        """Raises UserError, because noise takes no steps."""
        raise UserError(f'GaussianNoise takes no steps; found steps={steps}')

    def run(self, context: AttackContext, start: Tensor | None = None) -> AttackOutput:
        centre = context.images if start is None else start
        return AttackOutput((centre + self.sigma * normal_noise(centre, context.seeds)).clamp(0, 1))
