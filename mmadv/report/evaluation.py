"""The numbers of an evaluation as types; docs/results.md describes their JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
# At least 0, without an upper limit.
Amount = Annotated[float, Range(0)]


@dataclass(frozen=True, kw_only=True)
class MetricValues(Schema):
    """The metrics of one set of predictions, as fractions; an undefined metric is None.

    Attributes:
        scalars: metric -> value, for each metric of ``METRICS`` that the predictions have.
        iou: the IoU of each class.
        accuracy: the accuracy of each class.
        images: the number of images that count.
        pixels: the number of pixels that count.
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
        """Returns the values with additional metrics."""
        return dataclasses.replace(self, scalars={**self.scalars, **scalars})


@dataclass(frozen=True)
class PassCount(Schema):
    """The number of passes through the model.

    Attributes:
        total: the sum over all images.
        mean_per_image: the mean over the images that count.
        max_per_image: the largest number that one of these images took; None in results of earlier versions.
    """

    total: NotNegative
    mean_per_image: Amount
    max_per_image: NotNegative | None = None

    @classmethod
    def of(cls, total: int, passes: Sequence[int]) -> PassCount:
        """Returns the count of ``total`` passes. ``passes`` are those of each image that counts."""
        return cls(total, sum(passes) / len(passes), max(passes))

    @property
    def text(self) -> str:
        """The mean, and the largest number of an image if it is another one."""
        mean = f'{self.mean_per_image:.1f}'
        same = self.max_per_image is None or self.max_per_image == self.mean_per_image
        return mean if same else f'{mean} (at most {self.max_per_image})'


@dataclass(frozen=True)
class Passes(Schema):
    """The ``forward`` and ``backward`` passes through the model that an attack took."""

    forward: PassCount
    backward: PassCount


@dataclass(frozen=True)
class Wins(Schema):
    """The number of images on which an attack of an ensemble is the ``worst``, and on which it ``alone`` is."""

    worst: NotNegative
    alone: NotNegative


@dataclass(frozen=True)
class MinimisedMIoU(Schema):
    """The result of the search for the lowest mIoU over the dataset.

    Attributes:
        value: the lowest mIoU of all starts.
        lower_bound: a lower bound; no choice of attacks has a lower mIoU.
        spread: the highest mIoU of all starts minus the lowest.
        starts: name of the start -> mIoU at the end of the search from this start.
    """

    value: Share | None
    lower_bound: Share | None
    starts: dict[str, Share | None]
    spread: Share | None = None


@dataclass(frozen=True)
class RadiusResult(Schema):
    """The result of an attack at one radius.

    Attributes:
        worst_case: the metrics of the attack as a whole.
        members: attack of an ensemble -> its metrics; empty for a single attack.
        passes: the passes that the attack took.
        wins: attack of an ensemble -> the number of images on which it is the worst.
        minimised: the search for the lowest mIoU; only ensembles have one.
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
    """A radius: the ``text`` that the user gave, and its ``value`` in units of images in [0, 1]."""

    text: str
    value: Amount


@dataclass(frozen=True)
class Evaluation(Schema):
    """All numbers of a run.

    Attributes:
        title: the title of the attack.
        ignore_index: the label of the ignored pixels; no number counts them.
        classes: the names of the classes, in order.
        images: the number of images that count.
        excluded: the names of the images without a labelled pixel; no number counts them.
        failed: the images on which the model failed; no number counts them.
        clean: the metrics of the clean predictions.
        intervals: ``clean`` or radius -> metric -> 95 % interval over resampled images, None if it is undefined.
        attacked: radius -> the result of the attack.
        measurements: name -> summary in JSON, for each measurement besides the attack's own numbers.
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
        """Returns ``clean`` -> the metrics of the clean predictions, and radius -> those of the worst case."""
        return {CLEAN: self.clean, **{radius: result.worst_case for radius, result in self.attacked.items()}}

    @checked_exactly
    def interval(self, column: str, metric: str) -> Interval | None:
        """Returns the interval of a metric; None if there is none. ``column`` is ``clean`` or a radius.

        Raises:
            UserError: the evaluation does not have this column or metric.
        """
        for what, name, known in (('column', column, self.worst_cases), ('metric', metric, METRICS)):
            if name not in known:
                raise UserError(f"the evaluation has no {what} '{printable(str(name))}'{nearest(str(name), known)}")
        return ((self.intervals or {}).get(column) or {}).get(metric)

    def has_interval(self, metrics: Iterable[Metric]) -> bool:
        """Returns whether one of these metrics has an interval."""
        return any(self.interval(column, metric.name) for column in self.worst_cases for metric in metrics)

    def rows(self) -> Iterator[tuple[str, str, MetricValues]]:
        """Yields (radius, 'clean' or attack, metrics): clean first, then each attack and the worst case by radius."""
        yield '0', CLEAN, self.clean
        for radius, result in self.attacked.items():
            for name, values in result.members.items():
                yield radius, name, values
            yield radius, self.title, result.worst_case


@dataclass(frozen=True)
class AttackedImage(Schema):
    """The result of an attack at one radius on one image.

    Attributes:
        members: attack -> accuracy; a single attack has the name 'attack'.
        worst_case: the accuracy under the worst attack.
        worst_member: the name of the worst attack, None for an image without a valid pixel.
        forward_passes: the number of forward passes through the model.
        backward_passes: the number of backward passes through the model.
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
        index: the index in the dataset.
        image: the name of the image.
        valid_pixels: the number of pixels that count.
        clean: the clean accuracy, None if the image has no valid pixel.
        attacked: radius -> the result of the attack.
    """

    index: int
    image: str
    valid_pixels: int
    clean: float | None
    attacked: dict[str, AttackedImage]
