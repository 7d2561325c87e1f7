"""Randomized smoothing: a model averaged over Gaussian noise, for attacks, and its certificates.

Let f be a model and σ the standard deviation of the noise. Soft smoothing is G(x) = E softmax f(x + σε). Hard smoothing
is the distribution of the class that f predicts for x + σε. Images are in [0, 1]. Noisy images are not clipped, as no
certificate would hold otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn

from mmadv.attacks.checks import Image, check_range, check_sigma, warn_of_probabilities
from mmadv.attacks.freezing import frozen
from mmadv.attacks.randomness import derive_seed, normal_noise
from mmadv.errors import UserError, nearest
from mmadv.fields import Positive, Seed, checked, checked_exactly
from mmadv.robustness.certification import (
    BOUNDS,
    CORRECTIONS,
    SHARES,
    SIDES,
    certified_radius,
    finest_levels,
    two_sided_radii,
)
from mmadv.robustness.hierarchy import Hierarchy
from mmadv.shapes import ANY_FLOATS, Shaped

OUTPUTS = ('soft', 'mean_logits', 'hard')
NOISE = ('fresh', 'fixed')


class NonFiniteNoisyLogits(UserError):
    """The model returned NaN or infinite logits for noisy copies of an image."""

    def __init__(self) -> None:
        super().__init__('the model returns NaN or infinite logits for noisy images; check the weights')


@checked_exactly
class SmoothedModel(nn.Module):
    """A Monte Carlo estimate of a smoothed model, (N, C, h, w) -> (N, K, ...): any attack runs on it.

    Args:
        model: images -> logits (N, K) or (N, K, H, W). A module becomes a submodule.
        sigma: standard deviation of the noise, for images in [0, 1].
        samples: number of noise draws of one pass.
        output: 'soft' returns the logarithm of the mean probabilities; the gradient of its cross-entropy is the biased
            plug-in estimator (Kaur et al., 2019, equation 5). 'mean_logits' returns the mean of the logits; its
            gradient is unbiased (the TCM loss, equation 6). 'hard' returns the logarithm of the share of draws that
            predict each class; it has no gradient, so attack 'soft' instead.
        noise: 'fresh' draws new noise in every pass, so an attack follows the expectation. 'fixed' takes the same
            draws in every pass. All images of a batch get the same noise, so that they do not influence each other.
            The noise of a pass depends on ``seed`` and, if fresh, on the number of passes since ``reset``.
        seed: seed of the noise.
        draws_per_pass: number of draws that go through the model at once. More draws are faster and take more memory.
        image_seeds: one seed per image. Each image then gets its own noise, and every batch must have these images.

    Raises:
        UserError: σ or a number of samples is not positive, or an output or noise is unknown.
    """

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        *,
        sigma: float,
        samples: int = 20,
        output: str = 'soft',
        noise: str = 'fresh',
        seed: Seed = 0,
        draws_per_pass: int = 1,
        image_seeds: Sequence[Seed] | None = None,
    ) -> None:
        super().__init__()
        check_sigma(sigma, 'SmoothedModel')
        for name, value in (('samples', samples), ('draws_per_pass', draws_per_pass)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(f'SmoothedModel: {name} must be a positive integer; found {value!r}')
        for what, choice, known in (('output', output, OUTPUTS), ('noise', noise, NOISE)):
            if choice not in known:
                raise UserError(f"SmoothedModel: unknown {what} '{choice}'{nearest(str(choice), known)}")
        self.model = model
        self.sigma = float(sigma)
        self.samples = samples
        self.output = output
        self.noise = noise
        self.seed = seed
        self.draws_per_pass = draws_per_pass
        self.image_seeds = image_seeds
        self.passes = 0
        self._outputs_are_new = True

    def reset(self) -> None:
        """Restarts the sequence of fresh noise."""
        self.passes = 0

    @checked
    def forward(self, images: Annotated[Tensor, Shaped('N C h w', ANY_FLOATS)]) -> Tensor:
        """Returns scores whose arg max is the smoothed prediction, in the model's output size.

        Raises:
            UserError: images are not in [0, 1].
        """
        # NaN passes here: an attack finds it in the logits and can name the image.
        check_range(images, takes_nan=True)
        key = 'fixed' if self.noise == 'fixed' else self.passes
        self.passes += 1
        # The sum uses logarithms: probabilities may underflow, their logarithms do not.
        add = torch.logaddexp if self.output == 'soft' else torch.add
        total: Tensor | None = None
        for start in range(0, self.samples, self.draws_per_pass):
            draws = range(start, min(start + self.draws_per_pass, self.samples))
            noisy = images[None] + self.sigma * torch.stack([self._noise(images, key, draw) for draw in draws])
            logits = self.model(noisy.flatten(0, 1)).unflatten(0, noisy.shape[:2])
            if self._outputs_are_new:
                warn_of_probabilities(logits.flatten(0, 1))
                self._outputs_are_new = False
            part = self._summed(logits)
            total = part if total is None else add(total, part)
        assert total is not None
        if self.output == 'soft':
            return total - math.log(self.samples)
        mean = total / self.samples
        return mean if self.output == 'mean_logits' else mean.clamp_min(0.5 / self.samples).log()

    def _noise(self, images: Tensor, key: object, draw: int) -> Tensor:
        """Returns the noise of one draw, (1, C, h, w), or (N, C, h, w) if every image has its own."""
        if self.image_seeds is None:
            return normal_noise(images[:1], [derive_seed('smoothing', self.seed, key, draw)])
        if len(self.image_seeds) != len(images):
            raise UserError(f'SmoothedModel: {len(images)} images need image_seeds; found {len(self.image_seeds)}')
        seeds = [derive_seed('smoothing', self.seed, key, draw, seed) for seed in self.image_seeds]
        return normal_noise(images, seeds)

    def _summed(self, logits: Tensor) -> Tensor:
        """Returns the contribution of draws (S, N, K, ...) to the sum over all draws, (N, K, ...)."""
        if self.output == 'soft':
            return logits.log_softmax(2).logsumexp(0)
        if self.output == 'mean_logits':
            return logits.sum(0)
        votes = torch.zeros_like(logits).scatter_(2, logits.max(2, keepdim=True).indices, 1.0)
        return votes.detach().sum(0)


@checked_exactly
@dataclass(frozen=True, kw_only=True)
class Certifier:
    """Certifies the predictions of a smoothed model, pixel by pixel, in L2.

    ``n0`` draws select a class for every pixel. ``n`` other draws test, for every threshold τ, whether the probability
    p of this class exceeds τ. If it does, no perturbation of L2 norm up to σ Φ⁻¹(τ) changes the smoothed prediction of
    the pixel (Cohen et al., 2019; theorem 1 of Kaur et al., 2019, for soft smoothing). If not, the model abstains. The
    probability that any pixel of an image is certified wrongly at a τ is at most ``alpha`` (Fischer et al., 2021).

    With ``sides='two'`` the ``n`` draws bound the probabilities of all classes. A pixel is certified at τ if its
    radius σ/2 (Φ⁻¹(p_A) - Φ⁻¹(p_B)) of theorem 1 exceeds σ Φ⁻¹(τ).

    Args:
        sigma: standard deviation of the noise, for images in [0, 1].
        n0: number of draws that select.
        n: number of draws that certify.
        alpha: family-wise error rate over all pixels of an image.
        taus: thresholds in [0.5, 1). With 'bonferroni' the error rate holds for all thresholds together, with 'holm'
            for each threshold separately.
        kind: 'hard' for shares of predictions, 'soft' for mean probabilities.
        bound: 'clopper-pearson' for hard smoothing, 'hoeffding' or 'bernstein' (empirical Bernstein) for soft
            smoothing. None takes the first that fits.
        correction: 'bonferroni' or 'holm'. Holm's correction certifies at least as many pixels. None takes 'holm', or
            'bonferroni' with two sides, which is the only one that fits there.
        batch: number of draws that go through the model at once. Results do not depend on it.
        hierarchy: groups of classes; a pixel whose class is not certified falls back to the finest group of the class
            that is (after Anani et al., 2024). The error rate then holds over all levels, at each threshold by itself.
            It needs one side, and a bound that only the mean decides ('clopper-pearson' or 'hoeffding').
        sides: 'one' bounds the probability of the selected class from below, and its rivals by the rest. 'two' bounds
            each rival from above too. Two sides certify more if several rivals share the rest, and less if one rival
            has it all, as there are K bounds for each pixel. All thresholds then hold together.

    Raises:
        UserError: a number is out of its range, a name is unknown, or there are too few draws to certify anything. The
            message says how many draws are needed.
    """

    sigma: float
    n0: int = 10
    n: int = 100
    alpha: float = 0.001
    taus: Sequence[float] = (0.75,)
    kind: str = 'hard'
    bound: str | None = None
    correction: str | None = None
    batch: int = 16
    sides: str = 'one'
    hierarchy: Hierarchy | None = None

    def __post_init__(self) -> None:
        check_sigma(self.sigma, 'Certifier')
        for name in ('n0', 'n', 'batch'):
            if getattr(self, name) < 1:
                raise UserError(f'{name} must be positive; found {getattr(self, name)}')
        if not 0 < self.alpha < 1:
            raise UserError(f'alpha must lie between 0 and 1; found {self.alpha}')
        if not self.taus or len(set(self.taus)) < len(self.taus):
            raise UserError(f'tau takes at least one threshold, each once; found {list(self.taus)}')
        for tau in self.taus:
            if not 0.5 <= tau < 1:
                raise UserError(f'tau must be at least 0.5 and less than 1; found {tau}')
        if self.kind not in SHARES:
            raise UserError(f"unknown kind of smoothing '{self.kind}'{nearest(self.kind, SHARES)}")
        if self.bound is None:
            object.__setattr__(self, 'bound', SHARES[self.kind][0])
        known = SHARES[self.kind]
        if self.bound not in known:
            raise UserError(f"{self.kind} smoothing has no bound '{self.bound}'{nearest(str(self.bound), known)}")
        if self.sides not in SIDES:
            raise UserError(f"sides must be 'one' or 'two'; found '{self.sides}'")
        if self.correction is None:
            object.__setattr__(self, 'correction', SIDES[self.sides][0])
        if self.correction not in CORRECTIONS:
            raise UserError(f"unknown correction '{self.correction}'{nearest(str(self.correction), CORRECTIONS)}")
        if self.correction not in SIDES[self.sides]:
            raise UserError("two sides need the correction 'bonferroni', as a pixel has several bounds; leave it out")
        if self.hierarchy is not None and (self.sides == 'two' or self.bound == 'bernstein'):
            raise UserError("a hierarchy needs one side and the bound 'clopper-pearson' or 'hoeffding'")

    @property
    def radii(self) -> list[float]:
        """Returns the certified radius of each τ, in units of images in [0, 1]."""
        return [float(certified_radius(tau, self.sigma)) for tau in self.taus]

    @checked
    def check_samples(self, pixels: Positive, bounds_per_pixel: Positive = 1) -> None:
        """Raises UserError if ``n`` draws cannot certify all of ``pixels`` even if all draws agree.

        Args:
            pixels: number of pixels.
            bounds_per_pixel: number of bounds of each pixel, which is the number of classes with two sides.
        """
        for tau in self.taus:
            needed = BOUNDS[str(self.bound)].samples_needed(tau, self.alpha / (pixels * bounds_per_pixel))
            if self.n < needed:
                raise UserError(
                    f'n = {self.n} draws cannot certify tau {tau} for {pixels} pixels at alpha {self.alpha}; '
                    f'at least {needed} are needed'
                )

    @checked
    def __call__(self, model: Callable[[Tensor], Tensor], image: Image, *, seed: Seed = 0) -> Certificate:
        """Returns the certificate of one image.

        Args:
            model: images (N, C, h, w) -> logits (N, K, H, W). A module is in eval mode during the call.
            image: (C, h, w) in [0, 1].
            seed: seed of the noise; give each image a different one.

        Raises:
            NonFiniteNoisyLogits: the model returned NaN or infinite logits.
            UserError: the image is not in [0, 1], or there are too few draws for the number of pixels.
        """
        with torch.no_grad(), frozen(model):
            totals = self._totals(model, image, derive_seed('select', seed))
            selection, classes = totals.argmax(0), len(totals)
            if self.hierarchy is not None and len(self.hierarchy.classes) != classes:
                raise UserError(f'the model has {classes} classes, its hierarchy {len(self.hierarchy.classes)}')
            pixels = selection.numel()
            self.check_samples(pixels, 1 if self.sides == 'one' else classes)
            arguments = model, image, selection, derive_seed('certify', seed)
            if self.hierarchy is not None:
                levels = self._levels(*arguments, self.hierarchy)
                return Certificate(selection.cpu().numpy(), levels == 0, levels)
            certified = (self._one_sided if self.sides == 'one' else self._two_sided)(*arguments)
        return Certificate(selection.cpu().numpy(), certified)

    def _one_sided(self, model: Callable[[Tensor], Tensor], image: Tensor, selection: Tensor, seed: int) -> np.ndarray:
        """Returns whether the selected classes are certified at each τ, (T, H, W), by a test of p ≤ τ."""

        def share(logits: Tensor) -> Tensor:
            if self.kind == 'hard':
                # max returns the same indices as argmax in a fraction of the time.
                return (logits.max(1).indices == selection).double()
            return logits.double().softmax(1).gather(1, selection.expand(len(logits), 1, *selection.shape))[:, 0]

        mean, variance = self._evidence(map(share, self._noisy_logits(model, image, self.n, seed)))
        bound, correct = BOUNDS[str(self.bound)], CORRECTIONS[str(self.correction)]
        return np.stack([correct(bound.p_value(mean, variance, self.n, tau), self.alpha) for tau in self.taus])

    def _levels(
        self,
        model: Callable[[Tensor], Tensor],
        image: Tensor,
        selection: Tensor,
        seed: int,
        hierarchy: Hierarchy,
    ) -> np.ndarray:
        """Returns the finest level at which each pixel's group is certified, (T, H, W) int8; -1 where none is."""
        groups = torch.from_numpy(hierarchy.groups).to(selection.device)
        wanted = groups[:, selection]  # (L, H, W)

        def share(logits: Tensor) -> Tensor:
            if self.kind == 'hard':
                return (groups[:, logits.max(1).indices] == wanted[:, None]).double().transpose(0, 1)
            probabilities = logits.double().softmax(1)
            inside = (groups[:, :, None, None] == wanted[:, None]).double()  # (L, K, H, W)
            return torch.einsum('skhw,lkhw->slhw', probabilities, inside)

        mean, variance = self._evidence(map(share, self._noisy_logits(model, image, self.n, seed)))
        bound, correction = BOUNDS[str(self.bound)], str(self.correction)
        p_values = (bound.p_value(mean, variance, self.n, tau) for tau in self.taus)
        return np.stack([finest_levels(values, self.alpha, correction) for values in p_values])

    def _two_sided(self, model: Callable[[Tensor], Tensor], image: Tensor, selection: Tensor, seed: int) -> np.ndarray:
        """Returns whether the selected classes are certified at each τ, (T, H, W), by theorem 1."""
        # One draw after the other, as the shares of all classes take much memory.
        draws = (draw for logits in self._noisy_logits(model, image, self.n, seed) for draw in logits.split(1))
        means, variances = self._evidence(_shares(draw, self.kind).double() for draw in draws)
        radii = two_sided_radii(
            selection.cpu().numpy(),
            means,
            variances,
            self.n,
            alpha=self.alpha,
            sigma=self.sigma,
            bound=str(self.bound),
        )
        return np.stack([radii > radius for radius in self.radii])

    def _totals(self, model: Callable[[Tensor], Tensor], image: Tensor, seed: int) -> Tensor:
        """Returns the sum of the shares of all classes over ``n0`` draws, (K, H, W)."""
        total = None
        for logits in self._noisy_logits(model, image, self.n0, seed):
            part = _shares(logits, self.kind).sum(0)
            total = part if total is None else total + part
        assert total is not None
        return total

    def _evidence(self, parts: Iterable[Tensor]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the mean and unbiased variance of shares over ``n`` draws, float64.

        Args:
            parts: the shares of some draws each, (S, ...) float64.
        """
        total: Tensor | None = None
        squares: Tensor | None = None
        for share in parts:
            total = share.sum(0) + (0 if total is None else total)
            squares = share.square().sum(0) + (0 if squares is None else squares)
        assert total is not None and squares is not None
        mean = total / self.n
        variance = (squares - self.n * mean.square()).clamp_min(0) / max(self.n - 1, 1)
        return mean.cpu().numpy(), variance.cpu().numpy()

    def _noisy_logits(
        self, model: Callable[[Tensor], Tensor], image: Tensor, draws: int, seed: int
    ) -> Iterator[Tensor]:
        """Yields the logits of ``draws`` noisy copies of an image, batch by batch."""
        # Each draw is one call of the same generator, so its noise does not depend on the batch size.
        generator = torch.Generator().manual_seed(seed)
        for start in range(0, draws, self.batch):
            count = min(self.batch, draws - start)
            noise = torch.stack([torch.randn(image.shape, generator=generator) for _ in range(count)])
            logits = model(image[None] + self.sigma * noise.to(image))
            lowest, highest = torch.stack(torch.aminmax(logits)).tolist()
            if not (math.isfinite(lowest) and math.isfinite(highest)):
                raise NonFiniteNoisyLogits
            if start == 0:
                warn_of_probabilities(logits, lowest=lowest, highest=highest)
            yield logits


@dataclass(frozen=True)
class Certificate:
    """The certificate of one image.

    Attributes:
        classes: (H, W) int64, the selected class of every pixel.
        certified: (T, H, W) bool, whether the class is certified at each τ. If not, the smoothed model abstains.
        levels: (T, H, W) int8, the finest certified level of the hierarchy, -1 where none is; None without a hierarchy.
    """

    classes: np.ndarray
    certified: np.ndarray
    levels: np.ndarray | None = None


def _shares(logits: Tensor, kind: str) -> Tensor:
    """Returns the shares of each draw, (S, K, H, W): the probabilities, or 1 for the predicted class, else 0."""
    if kind == 'soft':
        return logits.double().softmax(1)
    return torch.zeros_like(logits).scatter_(1, logits.max(1, keepdim=True).indices, 1.0)
