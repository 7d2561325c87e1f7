"""The smallest radius at which an attack breaks an image, by bisection; figure 6 of SEA's paper uses this criterion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from mmadv.attacks import NonFinite, derive_seed, parse_radius
from mmadv.engine.predictor import ImageFailed
from mmadv.engine.spec import first_attack
from mmadv.errors import UserError
from mmadv.fields import NotNegative, Share
from mmadv.report.curve import STYLES, svg_text
from mmadv.report.drawing import plain_text
from mmadv.report.evaluation import Amount, NamedRadius, PassCount, Passes
from mmadv.report.measurement import Measurement, Option, Outcome, register_measurement
from mmadv.report.schema import Schema
from mmadv.report.table import Table, percent

FILE_NAME = 'minimal_radii.csv'
SHARE = 0.99
TOLERANCE = '0.5/255'


@dataclass(frozen=True)
class RadiiSummary(Schema):
    """The smallest radii that break images.

    Attributes:
        share: share of wrong pixels that breaks an image.
        upper: largest radius that was tried.
        tolerance: width of the last bracket.
        images: number of images that count.
        broken: number of images that were broken.
        median: median of the minimal radii; None if half or more of the images were not broken.
        not_broken: radius -> share of the images that are not broken within this radius.
        not_broken_at_upper: share of the images that are not broken within the largest radius.
        radii: minimal radii of the broken images, sorted.
        passes: passes of the bisection.
    """

    share: Share
    upper: NamedRadius
    tolerance: NamedRadius
    images: NotNegative
    median: Amount | None
    not_broken: dict[str, Share]
    not_broken_at_upper: Share
    radii: tuple[Amount, ...]
    broken: NotNegative | None = None
    passes: Passes | None = None


@dataclass
class Bracket:
    """The bracket of an image's minimal radius.

    Attributes:
        high: smallest radius that broke the image; None if no radius has broken it yet.
        failed: radii that did not break the image.
        forward: number of forward passes of the bisection.
        backward: number of backward passes of the bisection.
    """

    high: float | None = None
    failed: list[float] = field(default_factory=list)
    forward: int = 0
    backward: int = 0

    @property
    def low(self) -> float:
        """Returns the largest radius below ``high`` that did not break the image; failures above are ignored."""
        return max((radius for radius in self.failed if self.high is None or radius < self.high), default=0.0)

    def take(self, radius: float, broken: bool) -> None:
        """Narrows the bracket by the outcome of an attack at a radius."""
        if not broken:
            self.failed.append(radius)
        elif self.high is None or radius < self.high:
            self.high = radius


@register_measurement
@dataclass
class MinimalRadius(Measurement):
    """Finds, for each image, the smallest radius at which the attack makes a share of its valid pixels wrong.

    An image is broken if at least ``share`` of its valid pixels are predicted as another class than labelled. The
    results of the attack at the radii of the run give the first bracket. If the attack broke the image at none of these
    radii, ``upper`` is tried. Then the bracket is halved until it is at most ``tolerance`` wide. The attack succeeded
    at the bracket's upper end, so this end is an upper bound of the image's true minimal radius.

    Args:
        upper: largest radius to try, such as '32/255'.
        share: share of the valid pixels, in (0, 1].
        tolerance: width of the last bracket, such as '0.5/255'.

    Raises:
        UserError: the share, the radius or the tolerance is invalid.
    """

    upper: str
    share: float = SHARE
    tolerance: str = TOLERANCE

    name: ClassVar[str] = 'minimal_radius'
    key: ClassVar[str] = 'minimal_radius'
    summary: ClassVar[Any] = RadiiSummary
    options: ClassVar[tuple[Option, ...]] = (
        Option(
            '--minimal-radius',
            'upper',
            {
                'metavar': 'UPPER',
                'help': "find each image's smallest radius at which the attack breaks it, by bisection up to UPPER",
            },
        ),
        Option(
            '--minimal-share',
            'share',
            {
                'metavar': 'SHARE',
                'help': f'share of the valid pixels that are wrong in a broken image (default: {SHARE})',
            },
        ),
        Option(
            '--minimal-tolerance',
            'tolerance',
            {'metavar': 'RADIUS', 'help': f'width at which the bisection stops (default: {TOLERANCE})'},
        ),
    )

    def __post_init__(self) -> None:
        self._upper = parse_radius(self.upper, what='MinimalRadius.upper')
        self._tolerance = parse_radius(self.tolerance, what='MinimalRadius.tolerance')
        if not 0 < self.share <= 1:
            raise UserError(f'MinimalRadius.share must lie in (0, 1], such as 0.99; found {self.share:g}')
        if not 0 < self._tolerance < self._upper:
            raise UserError(
                f'MinimalRadius.tolerance {self.tolerance} must be positive and below MinimalRadius.upper {self.upper}'
            )

    def settings(self, spec: Any) -> Any:
        return {'upper': self._upper, 'share': self.share, 'tolerance': self._tolerance}

    def check(self, spec: Any) -> None:
        if spec.attack is None:
            raise UserError('MinimalRadius needs an attack; name one')
        if spec.region_text == 'patch':
            raise UserError(
                'MinimalRadius needs an attack with a radius, which a patch has not; leave MinimalRadius out'
            )
        for option in ('target', 'region', 'source'):
            if getattr(spec, option):
                raise UserError(
                    f'MinimalRadius is for untargeted attacks on all pixels of the model itself; '
                    f'leave out test_cfg.{option} or MinimalRadius'
                )
        first_attack(spec.attacks)[1].with_radius(self._upper)

    def measure(self, context: Any, group: Any) -> list[Any]:
        """Returns [lower end, upper end, forward passes, backward passes] of each image; the upper end may be None.

        If an image has no valid pixel, both ends are None and both numbers of passes are 0.
        """
        number = len(group.names)
        valid = (group.labels != group.ignore_index).flatten(1).sum(1)
        brackets = [Bracket() for _ in range(number)]
        self._take(brackets, range(number), 0.0, group.clean, group)
        for radius, attacked in group.attacked.items():
            if attacked.images is not None:
                self._take(brackets, range(number), parse_radius(radius), attacked.worst, group)
        left = [n for n in range(number) if int(valid[n])]
        while left:
            wanted = {n: self._next(brackets[n]) for n in left}
            left = [n for n in left if wanted[n] is not None]
            # Images with the same next radius are attacked together; at first, most images have the same one.
            for radius in sorted({value for value in wanted.values() if value is not None}):
                rows = [n for n in left if wanted[n] == radius]
                self._attack(context, group, rows, radius, brackets)
        return [
            [bracket.low, bracket.high, bracket.forward, bracket.backward] if int(pixels) else [None, None, 0, 0]
            for bracket, pixels in zip(brackets, valid, strict=True)
        ]

    def _next(self, bracket: Bracket) -> float | None:
        """Returns the radius to try next; None if the image is done."""
        if bracket.high is None:
            return self._upper if bracket.low < self._upper else None
        if bracket.high - bracket.low <= self._tolerance * (1 + 1e-9):
            return None
        return (bracket.low + bracket.high) / 2

    def _attack(
        self, context: Any, group: Any, rows: Sequence[int], radius: float, brackets: Sequence[Bracket]
    ) -> None:
        """Attacks the images of some rows at a radius, and narrows their brackets by the outcomes."""
        images = group.images[list(rows)]
        labels = group.labels[list(rows)].to(images.device)
        seeds = [derive_seed(context.spec.seed, group.names[row]) for row in rows]
        attack = first_attack(context.predictor.attacks)[1].with_radius(radius)
        try:
            result = attack(
                group.model,
                images,
                labels,
                seeds=seeds,
                ignore_index=group.ignore_index,
                clean_predictions=group.clean[list(rows)].to(images.device),
            )
        except NonFinite as error:
            position = rows[error.index]
            raise ImageFailed(
                position,
                f'{error.description} for the image {group.names[position]} at iteration '
                f'{error.iteration} of the bisection at radius {radius:g}; check the checkpoint and the precision',
            ) from error
        for n, row in enumerate(rows):
            brackets[row].forward += int(result.forward_passes[n])
            brackets[row].backward += int(result.backward_passes[n])
        self._take(brackets, rows, radius, result.predictions.cpu(), group)

    def _take(
        self,
        brackets: Sequence[Bracket],
        rows: Sequence[int],
        radius: float,
        predictions: Tensor,
        group: Any,
    ) -> None:
        labels = group.labels[list(rows)]
        valid = labels != group.ignore_index
        wrong = ((predictions != labels) & valid).flatten(1).sum(1).to(torch.float64)
        broken = wrong >= self.share * valid.flatten(1).sum(1)
        for row, one in zip(rows, broken.tolist(), strict=True):
            brackets[row].take(radius, one)

    def summarise(self, context: Any, outcome: Outcome) -> RadiiSummary:
        """Returns the share of images that are not broken within each radius, and statistics of the minimal radii."""
        values = [record.measurements[self.key] for record in outcome.records]
        measured = [value for value in values if value[0] is not None]
        radii = sorted(high for _, high, _, _ in measured if high is not None)
        highs = np.array([np.inf if high is None else high for _, high, _, _ in measured])
        middle = float(np.median(highs)) if len(radii) * 2 > len(measured) else None
        rounding = 1 + 1e-12
        return RadiiSummary(
            share=self.share,
            upper=NamedRadius(self.upper, self._upper),
            tolerance=NamedRadius(self.tolerance, self._tolerance),
            images=len(measured),
            broken=len(radii),
            median=middle,
            not_broken={
                radius: float((highs > parse_radius(radius) * rounding).mean())
                for radius in outcome.evaluation.attacked
            },
            not_broken_at_upper=float((highs > self._upper * rounding).mean()),
            radii=tuple(radii),
            passes=Passes(*(PassCount.of(sum(passes), passes) for passes in list(zip(*measured, strict=True))[2:])),
        )

    def write(self, context: Any, folder: Path, outcome: Outcome, summary: Any) -> Any:
        """Writes a row for each image: the bracket of its minimal radius and the passes of the bisection."""
        header = ('index', 'image', 'not broken at', 'broken at', 'forward_passes', 'backward_passes')
        rows = tuple((record.index, record.image, *record.measurements[self.key]) for record in outcome.records)
        Table(header, rows, text_columns=2).write_csv(folder / FILE_NAME)
        return summary

    @classmethod
    def sentences(cls, summary: RadiiSummary) -> list[str]:
        shares = {**summary.not_broken, summary.upper.text: summary.not_broken_at_upper}
        parts = ', '.join(f'{percent(share)} % within {radius}' for radius, share in shares.items())
        if summary.median is None:
            middle = f'half of them or more are not broken within {summary.upper.text}'
        else:
            middle = f'the median minimal radius is {255 * summary.median:.3g}/255'
        return [
            f'images of which {100 * summary.share:g} % of the pixels are not made wrong: {parts}; {middle} '
            f'({summary.images} images, bisected to {summary.tolerance.text})'
        ]

    @classmethod
    @plain_text
    def curves(cls, summaries: Mapping[str, RadiiSummary]) -> list[str]:
        """Returns a figure of the share of images that are not broken, as a function of the radius."""
        known = {name: summary for name, summary in summaries.items() if summary.images}
        if not known:
            return []
        figure = Figure(figsize=(5, 4), layout='constrained')
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for number, (name, summary) in enumerate(known.items()):
            radii, shares = curve_points(summary.radii, summary.images)
            colour, _, dash = STYLES[number % len(STYLES)]
            end = max([summary.upper.value, *radii])
            axes.step(
                [255 * radius for radius in [*radii, end]],
                [*shares, shares[-1]],
                where='post',
                color=colour,
                linestyle=dash,
                label=name,
            )
        axes.set_title('Minimal radii')
        axes.set_xlabel('radius × 255')
        axes.set_ylabel('images not broken, %')
        axes.set_ylim(-2, 102)
        axes.grid(alpha=0.3)
        if len(known) > 1:
            axes.legend()
        return [svg_text(figure, 'minimal radius')]


def curve_points(radii: Sequence[float], images: int) -> tuple[list[float], list[float]]:
    """Returns the steps of the curve: radii, and the percentage of images that are not broken from each radius on.

    >>> curve_points([0.0, 0.5], images=4)
    ([0.0, 0.0, 0.5], [100.0, 75.0, 50.0])
    """
    points = [(0.0, 100.0), *((radius, 100 * (1 - n / images)) for n, radius in enumerate(radii, start=1))]
    return [radius for radius, _ in points], [share for _, share in points]
