"""Threat models: the images that an attack may return for a given image.

Images are float in [0, 1], (N, C, H, W). Radii are in the same units.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated

import torch
from torch import Tensor

from mmadv.attacks.randomness import derive_seed, normal_noise, uniform_noise, uniform_scalars
from mmadv.attacks.region import Region, build_region
from mmadv.errors import UserError
from mmadv.fields import PositiveNumber, Radius, Range, WrittenRadius, checked
from mmadv.registry import THREATS
from mmadv.shapes import FLOATS, Seeds, Shaped

# The largest L2 distance of two images with 10^12 values.
LARGEST_RADIUS = 1e6
Batch = Annotated[Tensor, Shaped('N C h w', FLOATS)]


@checked
def parse_radius(radius: WrittenRadius, *, what: str = 'radius') -> float:
    """Returns a radius (or step size) as a float, from '4/255', '0.03', 0.03 or 4/255.

    >>> parse_radius('4/255') == 4 / 255 and parse_radius('0.5/255') == 0.5 / 255
    True
    >>> parse_radius('0.03')
    0.03

    Args:
        radius: the text or number.
        what: the name of the number in the error message.

    Raises:
        UserError: the radius is not a number, not finite, negative, or larger than the distance of any two images.
    """
    hint = "write it as '4/255', '0.03' or a number, in units of images in [0, 1]"
    if isinstance(radius, bool) or not isinstance(radius, (str, int, float)):
        raise UserError(f'{what} {radius!r} is not a number; {hint}')
    try:
        value = _quotient(radius) if isinstance(radius, str) else float(radius)
    except ZeroDivisionError:
        raise UserError(f"{what} '{radius}' divides by zero; {hint}") from None
    except (ValueError, OverflowError):
        raise UserError(f"{what} '{radius}' is not a number; {hint}") from None
    if not math.isfinite(value):
        raise UserError(f"{what} '{radius}' is not finite; {hint}")
    if value < 0:
        raise UserError(f"{what} '{radius}' is negative; {hint}")
    if value > LARGEST_RADIUS:
        raise UserError(f"{what} '{radius}' is larger than the distance of any two images; {hint}")
    return value


def _quotient(text: str) -> float:
    # Fraction(text) alone would accept '4/255' but not '0.5/255'.
    numerator, *denominators = text.split('/')
    if len(denominators) > 1:
        raise ValueError(text)
    return float(Fraction(numerator.strip()) / Fraction(denominators[0].strip() if denominators else 1))


def _per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


@dataclass(frozen=True, kw_only=True)
class Threat(ABC):
    """A ball of one norm around each image, intersected with [0, 1], perhaps inside a region only.

    Args:
        radius: the radius of the ball: '4/255', '0.03' or a float; positive.
        region: the pixels that may change, or the config of a region; None for all. All other pixels stay exactly as
            they are.

    Raises:
        UserError: the radius is not a positive number.
    """

    radius: Radius
    region: Region | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, 'region', build_region(self.region, type(self).__name__))
        radius = parse_radius(self.radius)
        if radius == 0:
            raise UserError('radius 0 leaves an attack nothing to change; give a positive radius, or evaluate clean')
        object.__setattr__(self, 'radius', radius)

    @checked
    def with_radius(self, radius: WrittenRadius) -> Threat:
        """Returns the same threat model with another radius."""
        return dataclasses.replace(self, radius=parse_radius(radius))

    @checked
    def inside(self, region: Region) -> Threat:
        """Returns the same threat model inside a region, in place of its own region."""
        return dataclasses.replace(self, region=region)

    @checked
    def scaled(self, factor: PositiveNumber) -> Threat:
        """Returns the threat model with its radius multiplied by ``factor``."""
        return self.with_radius(self.radius * factor)

    @abstractmethod
    def project(self, images: Tensor, centre: Tensor) -> Tensor:
        """Returns ``images`` moved into the ball around ``centre`` and into [0, 1]; (N, C, H, W)."""

    @abstractmethod
    def step(self, images: Tensor, gradient: Tensor, step_size: Tensor | float) -> Tensor:
        """Returns ``images`` moved by ``step_size`` along the norm's steepest ascent, without projection."""

    @abstractmethod
    def random_start(self, centre: Tensor, seeds: Sequence[int]) -> Tensor:
        """Returns images drawn uniformly from the ball, one seed per image, clipped to [0, 1]."""

    @abstractmethod
    def distance(self, images: Tensor, centre: Tensor) -> Tensor:
        """Returns the norm of ``images - centre`` per image, (N,)."""

    def values(self, images: Tensor) -> Tensor:
        """Returns the number of values that may change, at least 1, (N, 1, 1, 1) or (1, 1, 1, 1) int64."""
        if self.region is None:
            return torch.full((1, 1, 1, 1), images[0].numel(), device=images.device)
        return _per_image(self.region.mask(images).flatten(1).sum(1) * images.shape[1]).clamp_min(1)

    def whole_range(self, images: Tensor) -> float:
        """Returns a radius whose ball around any of ``images`` holds all of [0, 1]; inf if none is known."""
        return math.inf

    def confined(self, images: Tensor, centre: Tensor) -> Tensor:
        """Returns ``images`` with the pixels of ``centre`` outside the region; subclasses project and step with it."""
        return images if self.region is None else torch.where(self.region.mask(centre), images, centre)

    def inner(self, values: Tensor) -> Tensor:
        """Returns ``values`` (N, C, h, w) of images, such as gradients, with zeros outside the region."""
        return values if self.region is None else torch.where(self.region.mask(values), values, 0.0)

    def _stays_outside(self, images: Tensor, centre: Tensor) -> Tensor:
        """Returns per image whether all pixels outside the region are unchanged, (N,) bool."""
        return (self.confined(images, centre) == images).flatten(1).all(1)

    def in_ball(self, images: Tensor, centre: Tensor) -> Tensor:
        """Returns per image whether it is in the ball, up to the rounding of one value; (N,) bool."""
        tolerance = 8 * torch.finfo(images.dtype).eps * max(1.0, self.radius)
        return self.distance(images, centre) <= self.radius + tolerance

    @checked
    def contains(self, images: Batch, centre: Batch) -> Tensor:
        """Returns per image whether it is in the ball, in [0, 1], and unchanged outside the region; (N,) bool."""
        in_range = ((images >= 0) & (images <= 1)).flatten(1).all(1)
        return self.in_ball(images, centre) & in_range & self._stays_outside(images, centre)


@THREATS.register
@dataclass(frozen=True, kw_only=True)
class Linf(Threat):
    """Every value may change by at most ``radius``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.radius > 1:
            raise UserError(f"Linf radius {self.radius:g} is more than the whole range [0, 1]; write '4/255', not 4")

    @checked
    def scaled(self, factor: PositiveNumber) -> Threat:
        """Returns the ball scaled by ``factor``, with a radius of at most 1. At radius 1 the ball holds every image."""
        return self.with_radius(min(self.radius * factor, 1.0))

    def project(self, images: Tensor, centre: Tensor) -> Tensor:
        images = self.confined(images, centre)
        return torch.minimum(torch.maximum(images, centre - self.radius), centre + self.radius).clamp_(0, 1)

    def step(self, images: Tensor, gradient: Tensor, step_size: Tensor | float) -> Tensor:
        return images + step_size * self.inner(gradient).sign()

    @checked
    def random_start(self, centre: Batch, seeds: Seeds) -> Tensor:
        return self.project(centre + self.radius * uniform_noise(centre, seeds), centre)

    def distance(self, images: Tensor, centre: Tensor) -> Tensor:
        return (images - centre).abs().flatten(1).amax(1)

    def whole_range(self, images: Tensor) -> float:
        return 1.0


@THREATS.register
@dataclass(frozen=True, kw_only=True)
class L2(Threat):
    """The Euclidean norm of an image's change is at most ``radius``, in exact arithmetic.

    Rounding moves every value of an image a little, so the error grows with the number of values. Therefore ``project``
    measures images again after rounding, and shrinks a change that rounding has moved out of the ball.
    """

    def project(self, images: Tensor, centre: Tensor) -> Tensor:
        images = self.confined(images, centre)
        difference = images - centre
        norm = _l2(difference)
        step = difference * self._factor(norm, images.dtype)
        rounded = (centre + step).clamp_(0, 1)
        # The change is shrunk twice, because the rounding of the second image may lead out of the ball again. The last
        # candidate rounds every value towards the centre, so it stays in the ball.
        norm_again = _l2(rounded - centre)
        shrunk = (centre + step * self._factor(norm_again, images.dtype)).clamp_(0, 1)
        candidates = (
            (self._is_within(norm, images.dtype), images.clamp(0, 1)),
            (self._is_within(norm_again, images.dtype), rounded),
            (self._is_within(_l2(shrunk - centre), images.dtype), shrunk),
        )
        # All candidates are computed, because a test whether they are needed would wait for the device.
        projected = _rounded_towards(centre, step).clamp_(0, 1)
        for inside, candidate in reversed(candidates):
            projected = torch.where(_per_image(inside), candidate, projected)
        return projected

    def step(self, images: Tensor, gradient: Tensor, step_size: Tensor | float) -> Tensor:
        gradient = self.inner(gradient)
        # The largest entry is divided out first: squares of tiny gradients underflow in float32.
        largest = _per_image(gradient.abs().flatten(1).amax(1)).clamp_min(torch.finfo(gradient.dtype).tiny)
        direction = gradient / largest
        norm = _per_image(_l2(direction).to(gradient.dtype)).clamp_min(torch.finfo(gradient.dtype).tiny)
        return images + step_size * direction / norm

    @checked
    def random_start(self, centre: Batch, seeds: Seeds) -> Tensor:
        direction = self.inner(normal_noise(centre, seeds))
        norm = _per_image(_l2(direction).to(centre.dtype)).clamp_min(torch.finfo(centre.dtype).tiny)
        share = uniform_scalars(centre, [derive_seed(seed, 'radius') for seed in seeds])
        length = self.radius * share ** (1 / self.values(centre).to(centre.dtype))
        direction = direction / norm
        return self.project(centre + length * direction, centre)

    def distance(self, images: Tensor, centre: Tensor) -> Tensor:
        return _l2(images - centre).to(images.dtype)

    def whole_range(self, images: Tensor) -> float:
        return math.sqrt(int(self.values(images).max())) if len(images) else math.inf

    def in_ball(self, images: Tensor, centre: Tensor) -> Tensor:
        return _l2(images - centre) <= self.radius

    def _factor(self, norm: Tensor, dtype: torch.dtype) -> Tensor:
        """Returns the factor that scales a change of the given norm (N,) into the ball, (N, 1, 1, 1), at most 1."""
        wanted = self.radius * (1 - _margin(dtype))
        return _per_image((wanted / norm.clamp_min(torch.finfo(norm.dtype).tiny)).clamp_max(1.0).to(dtype))

    def _is_within(self, norm: Tensor, dtype: torch.dtype) -> Tensor:
        """Returns whether a change of the measured norm (N,) is in the ball for any rounding of the norm; (N,) bool."""
        return norm <= self.radius * (1 - _margin(dtype) / 4)


@THREATS.register
@dataclass(frozen=True, kw_only=True)
class L1(Threat):
    """The sum of the absolute changes of all values of an image is at most ``radius``.

    The projection is the exact one on the ball and [0, 1] together (Croce and Hein, Mind the box, ICML 2021). A step
    along the steepest ascent would change one value only. ``step`` spreads it over a share of the values, those with
    the largest gradient, as SLIDE (Tramèr and Boneh, 2019) does. APGD adapts that share to each image.

    Args:
        density: share of the values that a step changes.
    """

    density: Annotated[float, Range(0, 1, open_low=True)] = 0.2

    def project(self, images: Tensor, centre: Tensor) -> Tensor:
        images = self.confined(images, centre)
        difference = (images - centre).flatten(1).double()
        size, sign = difference.abs(), difference.sign()
        origin = centre.flatten(1).double()
        room = torch.minimum(torch.where(sign < 0, origin, 1 - origin), size)
        # Rounding of a change to the images' precision adds less than the margin.
        wanted = self.radius * (1 - _margin(images.dtype))
        step = sign * torch.minimum((size - _excess(size, room, wanted)).clamp_min(0), room)
        moved = _rounded_towards(centre, step.view_as(centre).to(centre.dtype)).clamp_(0, 1)
        inside = _per_image(size.minimum(room).sum(1) <= wanted)
        return torch.where(inside, images.clamp(0, 1), moved)

    def step(self, images: Tensor, gradient: Tensor, step_size: Tensor | float) -> Tensor:
        return self.sparse_step(images, gradient, step_size, torch.full_like(images[:, 0, 0, 0], self.density))

    def sparse_step(self, images: Tensor, gradient: Tensor, step_size: Tensor | float, density: Tensor) -> Tensor:
        """Returns ``images`` moved by ``step_size`` in all, equally over the values with the largest gradient.

        Args:
            images: (N, C, H, W).
            gradient: (N, C, H, W).
            step_size: length of the step, a number or (N, 1, 1, 1).
            density: share of the values that may change, (N,).
        """
        gradient = self.inner(gradient)
        size = gradient.abs().flatten(1)
        number = (density * self.values(images).flatten()).round().long().clamp(1, size.shape[1])
        least = size.sort(dim=1).values.gather(1, (size.shape[1] - number)[:, None])
        chosen = (size >= least) & (size > 0)
        signs = (gradient.sign().flatten(1) * chosen / chosen.sum(1, keepdim=True).clamp_min(1)).view_as(images)
        return images + step_size * signs

    @checked
    def random_start(self, centre: Batch, seeds: Seeds) -> Tensor:
        noise = self.inner(uniform_noise(centre, seeds))
        # Of a uniform number in [0, 1), -log(1 - u) has an exponential distribution, whose directions fill an L1 ball.
        exponential = -torch.log1p(-noise.abs()) * noise.sign()
        total = _per_image(exponential.abs().flatten(1).sum(1)).clamp_min(torch.finfo(centre.dtype).tiny)
        share = uniform_scalars(centre, [derive_seed(seed, 'radius') for seed in seeds])
        length = self.radius * share ** (1 / self.values(centre).to(centre.dtype))
        return self.project(centre + length * exponential / total, centre)

    def distance(self, images: Tensor, centre: Tensor) -> Tensor:
        return _l1(images - centre).to(images.dtype)

    def whole_range(self, images: Tensor) -> float:
        return float(self.values(images).max()) if len(images) else math.inf

    def in_ball(self, images: Tensor, centre: Tensor) -> Tensor:
        return _l1(images - centre) <= self.radius


def _l1(difference: Tensor) -> Tensor:
    """Returns the L1 norm per image, (N,) float64."""
    return difference.flatten(1).double().abs().sum(1)


def _excess(size: Tensor, room: Tensor, radius: float) -> Tensor:
    """Returns the number that is taken off each size so that the sizes, at most the room, sum to the radius; (N, 1).

    The sum is piecewise linear in that number. It bends where a size falls below its room and where it reaches zero.

    Args:
        size: (N, D) float64, not negative.
        room: (N, D) float64, at most ``size``.
        radius: the largest sum.
    """
    bends, order = torch.cat([size - room, size], dim=1).sort(dim=1)
    falling = torch.where(order < size.shape[1], 1.0, -1.0).double().cumsum(1)
    drops = (falling[:, :-1] * bends.diff(dim=1)).cumsum(1)
    sums = room.sum(1, keepdim=True) - torch.cat([torch.zeros_like(drops[:, :1]), drops], dim=1)
    last = ((sums > radius).sum(1, keepdim=True) - 1).clamp_min(0)
    at, total, slope = (one.gather(1, last) for one in (bends, sums, falling))
    return torch.where(total > radius, at + (total - radius) / slope.clamp_min(1), 0)


def _margin(dtype: torch.dtype) -> float:
    """Returns the share of the radius that covers the rounding of a factor, a product and a norm."""
    # Norms are summed in float64, with a relative error far below 1e-10 for any image.
    return max(4 * torch.finfo(dtype).eps, 1e-10)


def _rounded_towards(centre: Tensor, step: Tensor) -> Tensor:
    """Returns ``centre + step`` with every value rounded towards the centre."""
    moved = centre + step
    return torch.where((moved - centre).abs() > step.abs(), torch.nextafter(moved, centre), moved)


def _l2(difference: Tensor) -> Tensor:
    """Returns the L2 norm per image, (N,) float64."""
    return torch.linalg.vector_norm(difference.flatten(1).double(), dim=1)
