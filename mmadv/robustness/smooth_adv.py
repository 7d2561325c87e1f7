"""SmoothAdv: adversarial examples of the smoothed model, with the noise of its training."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from torch import Tensor

from mmadv.attacks.attack import Wrapper
from mmadv.attacks.attack_context import AttackContext
from mmadv.attacks.checks import check_radius, check_sigma
from mmadv.attacks.pgd import PGD
from mmadv.attacks.randomness import derive_seed, normal_noise
from mmadv.attacks.result import AttackOutput
from mmadv.attacks.threat import Linf, Threat
from mmadv.errors import UserError
from mmadv.fields import WrittenRadius, checked
from mmadv.registry import ATTACKS
from mmadv.robustness.smoothing import SmoothedModel


@ATTACKS.register
@dataclass(frozen=True, kw_only=True)
class SmoothAdv(Wrapper):
    """Attacks the soft-smoothed model, then adds Gaussian noise and clips to [0, 1] (Salman et al., 2019).

    This attack is for training. The data preprocessor replaces images by its output, so the network learns from noisy
    adversarial examples of its own smoothed model. The gradient is the plug-in estimator. Each image has its own
    ``samples`` draws, the same in every step. The added noise is another draw. Each step takes ``samples`` passes.

    Args:
        attack: PGD or a subclass of it, or its config, usually in L2. It must keep the last iterate, not the lowest
            accuracy.
        sigma: standard deviation of the noise, for images in [0, 1].
        samples: number of noise draws of a gradient.
    """

    attack: PGD
    sigma: float
    samples: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.attack, PGD) or self.attack.keep == 'lowest_accuracy':
            raise UserError(f"SmoothAdv: attack must be PGD that keeps the 'last' iterate; found {self.attack!r}")
        check_sigma(self.sigma, 'SmoothAdv')
        if isinstance(self.samples, bool) or not isinstance(self.samples, int) or self.samples < 1:
            raise UserError(f'SmoothAdv: samples must be a positive integer; found {self.samples!r}')

    @property
    def threat(self) -> Threat:
        """Returns the whole range of images, as the noise has no radius."""
        return Linf(radius=1.0)

    @property
    def start_threat(self) -> Threat:
        return self.threat

    @property
    def is_random(self) -> bool:
        return True

    @checked
    def with_radius(self, radius: WrittenRadius) -> SmoothAdv:
        return dataclasses.replace(self, attack=self.attack.with_threat(self.attack.threat.with_radius(radius)))

    def run(self, context: AttackContext, start: Tensor | None = None) -> AttackOutput:
        check_radius(self.attack.threat, context.images)
        smoothed = SmoothedModel(
            context.model, sigma=self.sigma, samples=self.samples, noise='fixed', image_seeds=context.seeds
        )
        part = context.of_model(smoothed)
        adversarial = self.attack.run(part, start).images
        context.forward_passes[context.rows] += self.samples * part.forward_passes
        context.backward_passes[context.rows] += self.samples * part.backward_passes
        noise = normal_noise(adversarial, [derive_seed('training noise', seed) for seed in context.seeds])
        return AttackOutput((adversarial + self.sigma * noise).clamp(0, 1))
