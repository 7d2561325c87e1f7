"""A run of ``mmadv test`` as a type: what ``results.json`` holds; docs/results.md describes it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmadv.errors import UserError
from mmadv.report.evaluation import Evaluation, NamedRadius
from mmadv.report.gradients import Gradients
from mmadv.report.results import FILE_NAME, SCHEMA, SCHEMA_VERSION, load_results
from mmadv.report.schema import InvalidValue, Schema


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
    """The model that was attacked in place of the one that is evaluated."""

    config: str
    checkpoint: str
    sha256: str


@dataclass(frozen=True)
class AttackSettings(Schema):
    """An attack: ``name`` on the command line, ``title`` in tables, ``parameters`` that build it."""

    name: str
    title: str
    parameters: dict[str, Any]


@dataclass(frozen=True)
class DatasetFacts(Schema):
    """A dataset: its ``type``, its ``size``, the ``limit`` on its images, and a colour for each class."""

    type: str
    size: int
    limit: int | None
    palette: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Check(Schema):
    """The outcome of one sanity check.

    Attributes:
        name: what should be so.
        passed: whether it is.
        evidence: the numbers.
        advice: what to do where it is not.
    """

    name: str
    passed: bool
    evidence: str
    advice: str


@dataclass(frozen=True)
class SanityChecks(Schema):
    """Sanity checks: names of the ``images``, the ``radius``, and the ``findings``."""

    images: tuple[str, ...]
    radius: str
    findings: tuple[Check, ...]


@dataclass(frozen=True)
class UniversalFiles(Schema):
    """A universal attack: how many ``training_images`` of ``training_data``, and radius -> file of the perturbation."""

    training_images: int
    training_data: int
    files: dict[str, str]


@dataclass(frozen=True)
class Picture(Schema):
    """A drawn image: ``file`` in the folder, ``index``, name of the ``image``, and the ``kind`` of choice."""

    file: str
    index: int
    image: str
    kind: str = 'sample'


@dataclass(frozen=True)
class RunResults(Schema):
    """What a run measured and what it was made with.

    Attributes:
        created: date and time, UTC, ISO 8601.
        command: that repeats the run.
        config: of the model.
        checkpoint: of the model.
        attack: None for clean predictions alone.
        radii: of the attack.
        seed: of all noise.
        batch_size: of the data.
        dataset: what was predicted.
        versions: package -> version.
        hardware: what it ran on.
        seconds: part -> seconds.
        evaluation: the numbers.
        pictures: that were drawn.
        source: the attacked model, where it is another one.
        target: of the attack, as given.
        precision: of model and attack.
        space: what is perturbed.
        caveats: sentences on what makes the numbers doubtful.
        trust: sanity checks.
        gradients: measures of the input gradients.
        universal: files of a universal attack.
    """

    created: str
    command: str
    config: ConfigText
    checkpoint: CheckpointFile
    attack: AttackSettings | None
    radii: tuple[NamedRadius, ...]
    seed: int
    batch_size: int | None
    dataset: DatasetFacts
    versions: dict[str, str]
    hardware: dict[str, Any]
    seconds: dict[str, float]
    evaluation: Evaluation
    pictures: tuple[Picture, ...]
    source: SourceModel | None = None
    target: str | None = None
    precision: str = 'float32'
    space: str = 'input'
    caveats: tuple[str, ...] = ()
    trust: SanityChecks | None = None
    gradients: Gradients | None = None
    universal: UniversalFiles | None = None

    @classmethod
    def load(cls, folder: str | Path) -> RunResults:
        """Returns the results of a folder that ``mmadv test`` wrote.

        Raises:
            UserError: there are none, they are of another schema version, or a key is missing or of another type.
        """
        try:
            return cls.from_json(load_results(folder))
        except InvalidValue as error:
            raise UserError(f'results {Path(folder) / FILE_NAME}: {error}; run mmadv test again') from None

    def write(self, folder: Path) -> None:
        """Writes ``results.json`` into a folder; numbers must be finite, undefined ones None."""
        content = {'schema': SCHEMA, 'schema_version': SCHEMA_VERSION, **self.to_json()}
        (folder / FILE_NAME).write_text(json.dumps(content, indent=1, allow_nan=False) + '\n', encoding='utf-8')
