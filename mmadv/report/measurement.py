"""What a measurement beside the attack's own numbers is, and the registry that the loop, the command and the page read.

A measurement is one class in one file: its options, what it measures of each group of images, its summary, and how
that is shown. ``mmadv/engine/measurements`` has those of mmadv, and docs/extending.md a recipe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from mmadv.fields import checked
from mmadv.report.schema import read_json, write_json
from mmadv.report.table import Table

if TYPE_CHECKING:
    from mmadv.report.evaluation import Evaluation, ImageResult

T = TypeVar('T', bound=type['Measurement'])


@dataclass(frozen=True, eq=False)
class Option:
    """An option of the command line.

    Attributes:
        flag: as ``--minimal-radius``.
        argument: of the measurement, that it sets; None for a switch, which only asks for the measurement.
        settings: further arguments of ``argparse``'s ``add_argument``; the type of a number follows from the
            annotation of the argument that it sets.
    """

    flag: str
    argument: str | None
    settings: Mapping[str, Any]

    @property
    def attribute(self) -> str:
        """Returns the name that argparse stores the value under."""
        return self.flag.lstrip('-').replace('-', '_')


class Picture(NamedTuple):
    """A picture on the page: its file below the result folder, and what it shows, in words."""

    file: str
    text: str


class Section(NamedTuple):
    """A section of the page: its title, a table of all runs, and the pictures of each run by the run's name."""

    title: str
    table: Table
    pictures: dict[str, list[Picture]]


class Outcome(NamedTuple):
    """What a run has measured by now.

    Attributes:
        evaluation: the numbers, with the summaries of the measurements before.
        images: the accuracies of each image.
        records: what is stored of each image, in the same order.
    """

    evaluation: Evaluation
    images: Sequence[ImageResult]
    records: Sequence[Any]


class Measurement:
    """Base of measurements; a subclass is a dataclass of its arguments, registered by ``register_measurement``.

    Attributes:
        name: key of the summary in results.json.
        key: of the value in the records of the images; empty where nothing is measured of each image.
        summary: type of the summary, as ``mmadv.report.schema`` reads it.
        of_run: whether the summary stands beside ``evaluation`` in results.json, not inside it.
        options: of the command line; giving the first one asks for the measurement.
    """

    name: ClassVar[str]
    key: ClassVar[str] = ''
    summary: ClassVar[Any] = Any
    of_run: ClassVar[bool] = False
    options: ClassVar[tuple[Option, ...]] = ()

    @classmethod
    def implied_by(cls, attack: Any) -> Measurement | None:
        """Returns the measurement where an attack asks for it by itself; None where it does not."""
        return None

    def settings(self, spec: Any) -> Any:
        """Returns what must not change when a run is resumed, fit for JSON; None for nothing.

        Args:
            spec: an ``EvaluationSpec``.
        """
        assert is_dataclass(self)
        return {field.name: getattr(self, field.name) for field in fields(self) if field.init}

    def check(self, spec: Any) -> None:
        """Raises UserError where the measurement does not go with an ``EvaluationSpec``."""

    def prepare(self, context: Any) -> Any:
        """Returns the predictor of the run, before its first image: that of the context, or a changed one.

        Args:
            context: a ``RunContext``.
        """
        return context.predictor

    def measure(self, context: Any, group: Any) -> list[Any]:
        """Returns a JSON-able value for each image of a group, for the record of the image.

        Args:
            context: a ``RunContext``.
            group: a ``PredictedGroup``, the images and what the attack made of them.

        Raises:
            ImageFailed: the model failed on an image.
        """
        raise NotImplementedError

    def holds(self, context: Any, record: Any) -> bool:
        """Returns whether what belongs to a stored record is there still; else its image is done again."""
        return True

    def summarise(self, context: Any, outcome: Outcome) -> Any:
        """Returns the summary, of type ``summary``, on the main process after the last image; None for none."""
        raise NotImplementedError

    def write(self, context: Any, folder: Path, outcome: Outcome, summary: Any) -> Any:
        """Writes what belongs into the result folder beside results.json; returns the summary as it is then."""
        return summary

    @classmethod
    def sentences(cls, summary: Any) -> list[str]:
        """Returns the summary in sentences, which are printed and stand on the page."""
        return []

    @classmethod
    def tables(cls, summary: Any) -> list[Table]:
        """Returns the summary as tables, which are printed and stand on the page among all numbers."""
        return []

    @classmethod
    def warnings(cls, summary: Any) -> list[str]:
        """Returns what makes the numbers of the run doubtful, for the head of the page."""
        return []

    @classmethod
    def text(cls, summary: Any) -> str:
        """Returns what the command prints: the sentences, or else the tables."""
        return '\n'.join(cls.sentences(summary)) or '\n\n'.join(table.text() for table in cls.tables(summary))

    @classmethod
    def curves(cls, summaries: Mapping[str, Any]) -> list[str]:
        """Returns plots of several runs as svg elements.

        Args:
            summaries: name of the run -> its summary, of the runs that have one.
        """
        return []

    @classmethod
    def section(cls, summaries: Mapping[str, Any]) -> Section | None:
        """Returns a section of the page of its own; arguments as of ``curves``."""
        return None

    @classmethod
    def files(cls, summary: Any) -> dict[str, str]:
        """Returns the files of the result folder that the page shows: key inside the summary -> file."""
        return {}

    @classmethod
    def check_summary(cls, summary: Any, evaluation: Evaluation, where: str) -> None:
        """Raises UserError where a stored summary does not agree with itself or the evaluation; names the key."""

    @classmethod
    def read(cls, summaries: Mapping[str, Any], where: str = 'results') -> Any:
        """Returns this measurement's summary of those in JSON, None without.

        Raises:
            InvalidValue: the JSON does not fit ``summary``.
        """
        value = summaries.get(cls.name)
        return None if value is None else read_json(value, cls.summary, f'{where}.{cls.name}')

    @staticmethod
    def to_json(summary: Any) -> Any:
        """Returns a summary as JSON."""
        return write_json(summary)


MEASUREMENTS: dict[str, type[Measurement]] = {}  # by the name of the class


def register_measurement(measurement: T) -> T:
    """Registers a measurement by its class' name, and makes it check its arguments; use as a decorator."""
    for other in MEASUREMENTS.values():
        if other.name == measurement.name or (other.key and other.key == measurement.key):
            raise ValueError(f'the measurement {other.__name__} has the name {measurement.name} already')
    MEASUREMENTS[measurement.__name__] = measurement
    return checked(measurement)
