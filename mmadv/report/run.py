"""The content of ``results.json`` as a type: one run of ``mmadv test``. docs/results.md describes it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmadv.errors import UserError
from mmadv.fields import NotNegative, checked_exactly
from mmadv.printing import shown
from mmadv.report.certificates import OLD_FILE, results_of_certificates
from mmadv.report.evaluation import Amount, Evaluation, MetricValues, NamedRadius
from mmadv.report.json_files import JsonFile
from mmadv.report.measurement import MEASUREMENTS, Measurement
from mmadv.report.schema import Schema, entry

SCHEMA = 'mmadv/results'
SCHEMA_VERSION = 1
RESULTS = JsonFile('results', SCHEMA, SCHEMA_VERSION, 'mmadv test')
FILE_NAME = 'results.json'
# Keys of ``versions`` that do not decide numbers: Python, and the commit, which can differ in documents only.
NOT_DECISIVE = ('python', 'mmadv_commit')


class RunMeasurements:
    """The names of the registered measurements that results.json has beside the evaluation."""

    def __contains__(self, name: object) -> bool:
        return any(measurement.of_run and measurement.name == name for measurement in MEASUREMENTS.values())


@dataclass(frozen=True)
class ConfigText(Schema):
    """The config of a model: its ``file``, and its whole ``text`` after inheritance."""

    file: str
    text: str


@dataclass(frozen=True)
class CheckpointFile(Schema):
    """A ``file`` of weights and its ``sha256``."""

    file: str
    sha256: str


@dataclass(frozen=True)
class SourceModel(Schema):
    """The source model: the run attacked it instead of the evaluated model.

    Attributes:
        config: path of its config.
        checkpoint: path of its checkpoint; None if the model brings its weights.
        sha256: checksum of its weights.
    """

    config: str
    checkpoint: str | None = None
    sha256: str = ''


@dataclass(frozen=True)
class AttackSettings(Schema):
    """An attack.

    Attributes:
        name: the name on the command line.
        title: the name in tables.
        parameters: the config that builds the attack.
        clean_candidate: whether the clean image counts if no attacked image is stronger.
    """

    name: str
    title: str
    parameters: dict[str, Any]
    clean_candidate: bool = False


@dataclass(frozen=True)
class DatasetFacts(Schema):
    """A dataset: its ``type``, its ``size``, the ``limit`` on its images, and a colour for each class."""

    type: str
    size: NotNegative
    limit: int | None
    palette: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Picture(Schema):
    """A drawn image: its ``file`` in the folder, name (``image``), ``index``, and why it was chosen (``kind``)."""

    file: str
    image: str
    index: int | None = None
    kind: str = 'sample'


@dataclass(frozen=True)
class RunResults(Schema):
    """The results and the settings of a run.

    Attributes:
        created: the date and time, UTC, ISO 8601.
        command: the command that repeats the run.
        config: the config of the model.
        checkpoint: the checkpoint of the model.
        attack: the attack; None for clean predictions alone.
        radii: the radii of the attack.
        seed: the seed of all noise.
        batch_size: the batch size of the data.
        dataset: the evaluated dataset.
        versions: package -> version.
        hardware: the hardware of the run.
        seconds: part -> seconds.
        evaluation: the numbers.
        pictures: the drawn pictures.
        source: the attacked model, if it is not the evaluated one.
        target: the target of the attack, as the user gave it.
        region: the pixels that the attack may change, as the user gave them; None for all.
        score: 'rest' if only the pixels outside the region are scored, or 'all'; None without a region.
        precision: the precision of the model and the attack.
        space: the space that the attack perturbs.
        sweep: 'shared' if the result at a radius counts at the larger radii too, else 'independent'.
        caveats: sentences with the reasons to doubt the numbers.
        measurements: name -> summary in JSON, for each measurement that is not in the evaluation.
    """

    created: str
    command: str
    config: ConfigText
    checkpoint: CheckpointFile
    attack: AttackSettings | None
    radii: tuple[NamedRadius, ...]
    seed: int
    dataset: DatasetFacts
    versions: dict[str, Any]
    hardware: dict[str, Any]
    seconds: dict[str, Amount]
    evaluation: Evaluation
    pictures: tuple[Picture, ...]
    batch_size: int | None = None
    source: SourceModel | None = None
    target: str | None = None
    region: str | None = None
    score: str | None = None
    precision: str = 'float32'
    space: str = 'input'
    sweep: str = 'independent'
    caveats: tuple[str, ...] = ()
    measurements: dict[str, Any] = entry(keys=RunMeasurements(), factory=dict)

    @classmethod
    @checked_exactly
    def load(cls, folder: str | Path) -> RunResults:
        """Returns the results of a folder that ``mmadv test`` or ``mmadv certify`` wrote.

        Raises:
            UserError: the folder has no results, the results are of another schema version, a key is missing, or a
                value has another type or range, or contradicts another.
        """
        path = Path(folder) / FILE_NAME
        content = _read(path)
        results = cls.from_json(content, f'results {path}')
        check_agreement(results, f'results {path}')
        return results

    def summary(self, measurement: type[Measurement], where: str = 'results') -> Any:
        """Returns the summary of a measurement; None if there is none.

        Raises:
            InvalidValue: the summary does not fit the measurement.
        """
        if measurement.of_run:
            return measurement.read(self.measurements, where)
        return measurement.read(self.evaluation.measurements, f'{where}.evaluation')

    def summaries(self) -> list[tuple[type[Measurement], Any]]:
        """Returns the measurements that the run has, with their summaries."""
        pairs = ((measurement, self.summary(measurement)) for measurement in MEASUREMENTS.values())
        return [(measurement, summary) for measurement, summary in pairs if summary is not None]

    def with_summary(self, measurement: Measurement, summary: Any) -> RunResults:
        """Returns the results with a new summary for a measurement."""
        changed = {measurement.name: measurement.to_json(summary)}
        if measurement.of_run:
            return replace(self, measurements={**self.measurements, **changed})
        measurements = {**self.evaluation.measurements, **changed}
        return replace(self, evaluation=replace(self.evaluation, measurements=measurements))

    def write(self, folder: Path) -> None:
        """Writes ``results.json`` into a folder; numbers must be finite, and undefined numbers must be None."""
        content = {'schema': SCHEMA, 'schema_version': SCHEMA_VERSION, **self.to_json()}
        (folder / FILE_NAME).write_text(json.dumps(content, indent=1, allow_nan=False) + '\n', encoding='utf-8')


@checked_exactly
def load_results(folder: str | Path) -> dict[str, Any]:
    """Returns the content of the ``results.json`` of a result folder; ``RunResults.load`` returns it as a type.

    Raises:
        UserError: the same errors as in ``RunResults.load``.
    """
    RunResults.load(folder)
    return _read(Path(folder) / FILE_NAME)


def check_agreement(run: RunResults, where: str) -> None:
    """Raises UserError unless the parts of results agree: classes, radii, and files inside the folder."""
    evaluation = run.evaluation
    number = len(evaluation.classes)
    for name, values in _metrics(evaluation):
        for key, of_classes in (('IoU', values.iou), ('Acc', values.accuracy)):
            if len(of_classes) != number:
                raise UserError(f'{where}.{name}.{key} must have a value for each of the {number} classes')
    radii = [radius.text for radius in run.radii]
    unknown = [radius for radius in evaluation.attacked if radius not in radii]
    if unknown:
        raise UserError(f'{where}.evaluation.attacked has the radius {shown(unknown[0])}, which is not among .radii')
    files = [(f'pictures[{n}].file', picture.file) for n, picture in enumerate(run.pictures)]
    for measurement in MEASUREMENTS.values():
        summary = run.summary(measurement, where)
        if summary is not None:
            measurement.check_summary(summary, evaluation, f'{where}.{_place(measurement)}')
            files += [(f'{_place(measurement)}.{place}', file) for place, file in measurement.files(summary).items()]
    for place, file in files:
        if file.startswith('/') or '..' in file.split('/') or '\0' in file:
            raise UserError(f'{where}.{place} must be a file inside the folder; found {shown(file)}')


def _place(measurement: type[Measurement]) -> str:
    return measurement.name if measurement.of_run else f'evaluation.{measurement.name}'


def _metrics(evaluation: Evaluation) -> Iterator[tuple[str, MetricValues]]:
    yield 'evaluation.clean', evaluation.clean
    for radius, result in evaluation.attacked.items():
        yield f'evaluation.attacked.{radius}.worst_case', result.worst_case
        for name, values in result.members.items():
            yield f'evaluation.attacked.{radius}.members.{name}', values


def _read(path: Path) -> dict[str, Any]:
    """Returns the content of a ``results.json``; if it does not exist, makes it from ``certificates.json``."""
    old = path.with_name(OLD_FILE)
    if not path.exists() and old.is_file():
        return results_of_certificates(RESULTS.read_any(old), f'results {old}')
    return RESULTS.read(path)
