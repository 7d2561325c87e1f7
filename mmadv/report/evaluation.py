"""The numbers of an evaluation as types; docs/results.md describes their JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from mmadv.errors import UserError, nearest
from mmadv.fields import NotNegative, Range, Share, checked_exactly
from mmadv.printing import printable, shown
from mmadv.report.metrics import METRICS, PREDICTION_METRICS, Metric
from mmadv.report.schema import OTHERS, InvalidValue, Schema, entry

CLEAN = 'clean'
T = TypeVar('T', bound='MetricValues')
Interval = tuple[Share, Share]
# From 0 on, without an end.
Amount = Annotated[float, Range(0)]


@dataclass(frozen=True, kw_only=True)
class MetricValues(Schema):
    """The metrics of one set of predictions, as fractions; None where one is undefined.

    Attributes:
        scalars: metric -> value, of the metrics of ``METRICS`` that the predictions have.
        iou: of each class.
        accuracy: of each class.
        images: how many count.
        pixels: how many count.
    """

    scalars: dict[str, Share | None] = entry(keys=METRICS)
    iou: tuple[Share | None, ...] = entry(key='IoU')
    accuracy: tuple[Share | None, ...] = entry(key='Acc')
    images: NotNegative
    pixels: NotNegative

    @classmethod
    def from_json(cls: type[T], value: Any, where: str = 'metrics') -> T:
        values = super().from_json(value, where)
        for metric in PREDICTION_METRICS:
            if metric.name not in value:
                raise InvalidValue(f"{where} must be a dict with '{metric.name}'; found {shown(value)}")
        return values

    def __getitem__(self, metric: str) -> float | None:
        return self.scalars[metric]

    def __contains__(self, metric: object) -> bool:
        return metric in self.scalars

    def with_scalars(self, scalars: Mapping[str, float | None]) -> MetricValues:
        """Returns the values with further metrics."""
        return dataclasses.replace(self, scalars={**self.scalars, **scalars})


@dataclass(frozen=True)
class PassCount(Schema):
    """Passes of the model.

    Attributes:
        total: over all images.
        mean_per_image: over the images that count.
    """

    total: NotNegative
    mean_per_image: Amount


@dataclass(frozen=True)
class Passes(Schema):
    """Passes of the model that an attack took, ``forward`` and ``backward``."""

    forward: PassCount
    backward: PassCount


@dataclass(frozen=True)
class Wins(Schema):
    """On how many images an attack of an ensemble is the ``worst``, and on how many it ``alone`` is."""

    worst: NotNegative
    alone: NotNegative


@dataclass(frozen=True)
class MinimisedMIoU(Schema):
    """What the search for the lowest mIoU over the dataset gave.

    Attributes:
        value: the lowest mIoU of all starts.
        lower_bound: no choice of attacks is below it.
        spread: the highest start less the lowest.
        starts: name -> mIoU at the end of the search from there.
    """

    value: Share | None
    lower_bound: Share | None
    starts: dict[str, Share | None]
    spread: Share | None = None


@dataclass(frozen=True)
class RadiusResult(Schema):
    """What an attack at one radius did.

    Attributes:
        worst_case: metrics of the attack as a whole.
        members: attack of an ensemble -> its metrics; empty for a single attack.
        passes: that the attack took.
        wins: attack of an ensemble -> on how many images it is the worst.
        minimised: of ensembles, the search for the lowest mIoU.
    """

    worst_case: MetricValues
    members: dict[str, MetricValues]
    passes: Passes
    wins: dict[str, Wins] | None = None
    minimised: MinimisedMIoU | None = entry(omit=True, default=None)


@dataclass(frozen=True)
class FailedImage(Schema):
    """An image that the model failed on, and the ``reason``."""

    image: str
    reason: str


@dataclass(frozen=True)
class NamedRadius(Schema):
    """A radius as it was given, and its value in units of images in [0, 1]."""

    text: str
    value: Amount


@dataclass(frozen=True)
class Evaluation(Schema):
    """All numbers of a run.

    Attributes:
        title: of the attack.
        ignore_index: label of the pixels that are in no count.
        classes: names, in order.
        images: how many count.
        excluded: names of the images without a labelled pixel, which are in no number.
        failed: images on which the model failed, which are in no number.
        clean: metrics of the clean predictions.
        intervals: ``clean`` or radius -> metric -> 95 % interval over resampled images, None where it is undefined.
        attacked: radius -> what the attack did.
        measurements: name -> summary in JSON, of the measurements beside the attack's own.
    """

    title: str
    ignore_index: int
    classes: tuple[str, ...]
    images: NotNegative
    excluded: tuple[str, ...]
    clean: MetricValues
    attacked: dict[str, RadiusResult]
    failed: tuple[FailedImage, ...] = ()
    intervals: dict[str, dict[str, Interval | None] | None] | None = None
    measurements: dict[str, Any] = entry(keys=OTHERS, factory=dict)

    @property
    def worst_cases(self) -> dict[str, MetricValues]:
        """Returns the metrics of the clean predictions, as ``clean``, and of the worst case at every radius."""
        return {CLEAN: self.clean, **{radius: result.worst_case for radius, result in self.attacked.items()}}

    @checked_exactly
    def interval(self, column: str, metric: str) -> Interval | None:
        """Returns the interval of a metric, ``column`` being ``clean`` or a radius; None without.

        Raises:
            UserError: there is no such column or metric.
        """
        for what, name, known in (('column', column, self.worst_cases), ('metric', metric, METRICS)):
            if name not in known:
                raise UserError(f"the evaluation has no {what} '{printable(str(name))}'{nearest(str(name), known)}")
        return ((self.intervals or {}).get(column) or {}).get(metric)

    def has_interval(self, metrics: Iterable[Metric]) -> bool:
        """Returns whether one of these metrics has an interval."""
        return any(self.interval(column, metric.name) for column in self.worst_cases for metric in metrics)

    def rows(self) -> Iterator[tuple[str, str, MetricValues]]:
        """Yields (radius, what was measured, metrics): clean first, then by radius each attack and the worst case."""
        yield '0', CLEAN, self.clean
        for radius, result in self.attacked.items():
            for name, values in result.members.items():
                yield radius, name, values
            yield radius, self.title, result.worst_case


@dataclass(frozen=True)
class AttackedImage(Schema):
    """What an attack at one radius did to an image.

    Attributes:
        members: attack -> accuracy; a single attack has the name 'attack'.
        worst_case: accuracy under the worst of them.
        worst_member: its name, None for an image without a valid pixel.
        forward_passes: of the model.
        backward_passes: of the model.
    """

    members: dict[str, float | None]
    worst_case: float | None
    worst_member: str | None
    forward_passes: int
    backward_passes: int


@dataclass(frozen=True)
class ImageResult(Schema):
    """The accuracies of an image.

    Attributes:
        index: in the dataset.
        image: its name.
        valid_pixels: how many count.
        clean: accuracy, None without a valid pixel.
        attacked: radius -> what the attack did.
    """

    index: int
    image: str
    valid_pixels: int
    clean: float | None
    attacked: dict[str, AttackedImage]
