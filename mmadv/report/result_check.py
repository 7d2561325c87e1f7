"""What ``results.json`` must be before anything is made of it: types, ranges, and parts that agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypedDict

from mmadv.errors import UserError
from mmadv.fields import NotNegative, NotRequired, Range, Share, check
from mmadv.printing import shown

Fractions = list[Share | None]
Interval = tuple[Share, Share]
Seconds = Annotated[float, Range(0)]
# In units of images in [0, 1]; in L2 the whole range is the root of the number of values.
RadiusValue = Annotated[float, Range(0)]


class Metrics(TypedDict):
    """The metrics of one set of predictions."""

    aAcc: Share | None
    aAcc_image_mean: Share | None
    mAcc: Share | None
    mIoU: Share | None
    IoU: Fractions
    Acc: Fractions
    mIoU_greedy: NotRequired[Share | None]
    mIoU_minimised: NotRequired[Share | None]
    mIoU_lower_bound: NotRequired[Share | None]
    target_rate: NotRequired[Share | None]
    target_rate_image_mean: NotRequired[Share | None]
    images: NotNegative
    pixels: NotNegative


class PassCount(TypedDict):
    """Passes of the model."""

    total: NotNegative
    mean_per_image: Annotated[float, Range(0)]


class Passes(TypedDict):
    """Passes of the model, by direction."""

    forward: PassCount
    backward: PassCount


class Wins(TypedDict):
    """How often an attack of an ensemble is the worst."""

    worst: NotNegative
    alone: NotNegative


class Minimised(TypedDict):
    """The search for the lowest mIoU."""

    value: Share | None
    lower_bound: Share | None
    starts: dict[str, Share | None]


class Attacked(TypedDict):
    """What the attack at one radius did."""

    worst_case: Metrics
    members: dict[str, Metrics]
    wins: NotRequired[dict[str, Wins] | None]
    passes: Passes
    minimised: NotRequired[Minimised]


class Failed(TypedDict):
    """An image that the model failed on."""

    image: str
    reason: str


class SizeAccuracies(TypedDict):
    """Accuracies by object size."""

    aAcc: Fractions
    object_mean: Fractions


class ObjectSizes(TypedDict):
    """Accuracies by object size, with the sizes."""

    edges: list[Share]
    objects: list[NotNegative]
    pixels: list[NotNegative]
    clean: SizeAccuracies
    attacked: dict[str, SizeAccuracies]


class NamedRadius(TypedDict):
    """A radius as given, and its value."""

    text: str
    value: RadiusValue


class MinimalRadius(TypedDict):
    """The minimal radii of a run."""

    share: Share
    upper: NamedRadius
    tolerance: NamedRadius
    images: NotNegative
    not_broken: dict[str, Share]
    not_broken_at_upper: Share
    median: RadiusValue | None
    radii: list[RadiusValue]


class Evaluation(TypedDict):
    """``evaluation`` of the results."""

    title: str
    ignore_index: int
    classes: list[str]
    images: NotNegative
    excluded: list[str]
    failed: NotRequired[list[Failed]]
    clean: Metrics
    intervals: NotRequired[dict[str, dict[str, Interval | None] | None] | None]
    attacked: dict[str, Attacked]
    object_sizes: NotRequired[ObjectSizes | None]
    rounded: NotRequired[dict[str, dict] | None]
    minimal_radius: NotRequired[MinimalRadius | None]


class AttackSettings(TypedDict):
    """``attack`` of the results."""

    name: str
    title: str
    parameters: dict


class File(TypedDict):
    """A file and its checksum."""

    file: str
    sha256: str


class Config(TypedDict):
    """The config."""

    file: str
    text: str


class Dataset(TypedDict):
    """The dataset."""

    type: str
    size: NotNegative
    limit: int | None
    palette: list[tuple[int, int, int]]


class Finding(TypedDict):
    """One finding of the trust check."""

    name: str
    passed: bool
    evidence: str
    advice: str


class Trust(TypedDict):
    """The trust check."""

    findings: list[Finding]


class Picture(TypedDict):
    """One picture."""

    file: str
    image: str
    kind: NotRequired[str]


class Target(TypedDict):
    """What gradients were compared with."""

    type: str
    of: str


class Sheet(TypedDict):
    """The sheet of gradients."""

    file: str


class Gradients(TypedDict):
    """The study of input gradients."""

    target: Target
    classes: list[str]
    without_example: list[str]
    cosine: float | None
    cosine_present: float | None
    cosine_absent: float | None
    high_frequency: float | None
    image_high_frequency: float | None
    per_image: list[dict]
    sheet: NotRequired[Sheet | None]


class Results(TypedDict):
    """The whole of ``results.json``; docs/results.md describes the keys."""

    created: str
    command: str
    config: Config
    checkpoint: File
    attack: AttackSettings | None
    radii: list[NamedRadius]
    seed: int
    caveats: NotRequired[list[str]]
    dataset: Dataset
    versions: dict[str, Any]
    hardware: dict[str, Any]
    seconds: dict[str, Seconds]
    evaluation: Evaluation
    trust: NotRequired[Trust | None]
    gradients: NotRequired[Gradients | None]
    pictures: list[Picture]


def check_results(results: Any, where: str) -> None:
    """Raises UserError, which names the key, unless results are of the types and ranges of their schema and agree.

    Args:
        results: content of ``results.json``.
        where: what the message calls the file.
    """
    check(results, Results, where)
    evaluation = results['evaluation']
    number = len(evaluation['classes'])
    for name, metrics in _metrics(evaluation):
        for key in ('IoU', 'Acc'):
            if len(metrics[key]) != number:
                raise UserError(f'{where}.{name}.{key} must have a value for each of the {number} classes')
    radii = [radius['text'] for radius in results['radii']]
    unknown = [radius for radius in evaluation['attacked'] if radius not in radii]
    if unknown:
        raise UserError(f'{where}.evaluation.attacked has the radius {shown(unknown[0])}, which is not among .radii')
    _check_sizes(evaluation.get('object_sizes'), evaluation['attacked'], where)
    for place, file in _files(results):
        if file.startswith('/') or '..' in file.split('/') or '\0' in file:
            raise UserError(f'{where}.{place} must be a file inside the folder; found {shown(file)}')


def _metrics(evaluation: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    found = [('evaluation.clean', evaluation['clean'])]
    for radius, attacked in evaluation['attacked'].items():
        found.append((f'evaluation.attacked.{radius}.worst_case', attacked['worst_case']))
        found += [(f'evaluation.attacked.{radius}.members.{name}', one) for name, one in attacked['members'].items()]
    return found


def _check_sizes(sizes: Mapping[str, Any] | None, attacked: Mapping[str, Any], where: str) -> None:
    if sizes is None:
        return
    number = len(sizes['edges']) + 1
    parts = [sizes['clean'], *sizes['attacked'].values()]
    lists = [sizes['objects'], sizes['pixels'], *(part[key] for part in parts for key in ('aAcc', 'object_mean'))]
    if number < 2 or any(len(one) != number for one in lists):
        raise UserError(f'{where}.evaluation.object_sizes must have a value for each size between its edges')
    if not sizes['attacked'].keys() <= attacked.keys():
        raise UserError(f'{where}.evaluation.object_sizes.attacked has a radius that evaluation.attacked has not')


def _files(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the files that reports read, which must not lead out of the folder."""
    files = [(f'pictures[{n}].file', picture['file']) for n, picture in enumerate(results['pictures'])]
    sheet = (results.get('gradients') or {}).get('sheet')
    return [*files, *([('gradients.sheet.file', sheet['file'])] if sheet else [])]
