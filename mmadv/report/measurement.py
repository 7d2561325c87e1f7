"""The base of measurements besides the attack's own numbers, and their registry.

The evaluation loop, the command and the page read the registry. A measurement is one class in one file. The class has
the options, the measurement of each group of images, the summary, and how the page shows the summary.
``mmadv/engine/measurements`` has the measurements of mmadv. docs/extending.md has a recipe for a new one.
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
        flag: the flag, such as ``--minimal-radius``.
        argument: the argument of the measurement that the option sets; None for a switch, which only asks for the
            measurement.
        settings: more arguments of ``argparse``'s ``add_argument``. The type of a number follows from the annotation of
            the argument that the option sets.
    """

    flag: str
    argument: str | None
    settings: Mapping[str, Any]

    @property
    def attribute(self) -> str:
        """Returns the name that argparse stores the value under."""
        return self.flag.lstrip('-').replace('-', '_')


class Picture(NamedTuple):
    """A picture on the page: its file below the result folder, and a text that says what the picture shows."""

    file: str
    text: str


class Section(NamedTuple):
    """A section of the page: its title, a table of all runs, and the pictures of each run by the run's name."""

    title: str
    table: Table
    pictures: dict[str, list[Picture]]


class Outcome(NamedTuple):
    """The results of a run so far.

    Attributes:
        evaluation: the numbers, with the summaries of the earlier measurements.
        images: the accuracies of each image.
        records: the stored record of each image, in the same order.
    """

    evaluation: Evaluation
    images: Sequence[ImageResult]
    records: Sequence[Any]


class Measurement:
    """Base of measurements; a subclass is a dataclass of its arguments, registered by ``register_measurement``.

    Attributes:
        name: the key of the summary in results.json.
        key: the key of the value in the records of the images; empty if the measurement has no value for each image.
        summary: the type of the summary, as ``mmadv.report.schema`` reads it.
        of_run: whether results.json has the summary beside ``evaluation``, not inside it.
        options: the options of the command line; the first one asks for the measurement.
    """

    name: ClassVar[str]
    key: ClassVar[str] = ''
    summary: ClassVar[Any] = Any
    of_run: ClassVar[bool] = False
    options: ClassVar[tuple[Option, ...]] = ()

    @classmethod
    def implied_by(cls, attack: Any) -> Measurement | None:
        """Returns the measurement if an attack asks for it by itself; None if it does not."""
        return None

    def settings(self, spec: Any) -> Any:
        """Returns the JSON-able settings that must not change when a run is resumed; None if there are none.

        Args:
            spec: an ``EvaluationSpec``.
        """
        assert is_dataclass(self)
        return {field.name: getattr(self, field.name) for field in fields(self) if field.init}

    def check(self, spec: Any) -> None:
        """Raises UserError if the measurement is not possible with an ``EvaluationSpec``."""

    def prepare(self, context: Any) -> Any:
        """Returns the predictor for the run, before its first image: the context's predictor, or a changed one.

        Args:
            context: a ``RunContext``.
        """
        return context.predictor

    def measure(self, context: Any, group: Any) -> list[Any]:
        """Returns a JSON-able value for each image of a group, for the record of the image.

        Args:
            context: a ``RunContext``.
            group: a ``PredictedGroup``: the images and the results of the attack on them.

        Raises:
            ImageFailed: the model failed on an image.
        """
        raise NotImplementedError

    def holds(self, context: Any, record: Any) -> bool:
        """Returns whether everything that belongs to a stored record still exists; if not, its image runs again."""
        return True

    def summarise(self, context: Any, outcome: Outcome) -> Any:
        """Returns the summary, of type ``summary``, or None; runs on the main process after the last image."""
        raise NotImplementedError

    def write(self, context: Any, folder: Path, outcome: Outcome, summary: Any) -> Any:
        """Writes the measurement's files into the result folder, beside results.json; returns the final summary."""
        return summary

    @classmethod
    def sentences(cls, summary: Any) -> list[str]:
        """Returns the summary in sentences, for the command's output and the page."""
        return []

    @classmethod
    def tables(cls, summary: Any) -> list[Table]:
        """Returns the summary as tables, for the command's output and the page's section of all numbers."""
        return []

    @classmethod
    def warnings(cls, summary: Any) -> list[str]:
        """Returns the reasons to doubt the numbers of the run, for the top of the page."""
        return []

    @classmethod
    def text(cls, summary: Any) -> str:
        """Returns the text that the command prints: the sentences, or the tables if there are no sentences."""
        return '\n'.join(cls.sentences(summary)) or '\n\n'.join(table.text() for table in cls.tables(summary))

    @classmethod
    def curves(cls, summaries: Mapping[str, Any]) -> list[str]:
        """Returns plots of several runs as svg elements.

        Args:
            summaries: name of the run -> its summary, for each run that has one.
        """
        return []

    @classmethod
    def section(cls, summaries: Mapping[str, Any]) -> Section | None:
        """Returns the measurement's own section of the page, or None; takes the arguments of ``curves``."""
        return None

    @classmethod
    def files(cls, summary: Any) -> dict[str, str]:
        """Returns the files of the result folder that the page shows: key inside the summary -> file."""
        return {}

    @classmethod
    def check_summary(cls, summary: Any, evaluation: Evaluation, where: str) -> None:
        """Raises UserError, which names the key, if a stored summary contradicts itself or the evaluation."""

    @classmethod
    def read(cls, summaries: Mapping[str, Any], where: str = 'results') -> Any:
        """Returns this measurement's summary from all summaries in JSON; None if there is none.

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
    """Registers a measurement by the name of its class, and makes it check its arguments; use it as a decorator."""
    for other in MEASUREMENTS.values():
        if other.name == measurement.name or (other.key and other.key == measurement.key):
            raise ValueError(f'the measurement {other.__name__} has the name {measurement.name} already')
    MEASUREMENTS[measurement.__name__] = measurement
    return checked(measurement)
