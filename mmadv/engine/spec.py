"""The description of an evaluation, which is built once and never changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypedDict

from mmengine.config import Config

from mmadv.attacks import Attack, Box, Cascade, Linf, parse_radius
from mmadv.attacks.class_weights import needs_class_weights, with_class_weights
from mmadv.attacks.patch import PatchAttack
from mmadv.engine.attack_regions import parse_box
from mmadv.engine.class_weights import class_weights_of_dataset
from mmadv.errors import UserError, nearest
from mmadv.fields import NotNegative, NotRequired, Positive, Radius, checked
from mmadv.printing import shown
from mmadv.registry import ATTACKS, build
from mmadv.report.measurement import MEASUREMENTS, Measurement
from mmadv.report.run import CheckpointFile, SourceModel

SPACES = ('input', 'image')
SWEEPS = ('independent', 'shared')
# Keys of a config that decide numbers; a resumed run must have the same values.
DECISIVE_KEYS = ('model', 'data_preprocessor', 'custom_hooks', 'custom_imports', 'default_scope')


class SourceConfig(TypedDict):
    """Files of the source model, which is attacked in place of the evaluated model.

    Attributes:
        config: path of its config.
        checkpoint: path of its checkpoint; left out if the model brings its weights.
    """

    config: str
    checkpoint: NotRequired[str]


@checked
@dataclass(frozen=True)
class EvaluationSpec:
    """Everything that decides the numbers of an evaluation, besides the data and the weights themselves.

    Attributes:
        attack: the attack; None for clean predictions alone.
        radii: radii of the attack, as texts or numbers; empty for the attack's own radius.
        seed: seed of all noise.
        limit: number of images, spread evenly over the dataset; None for all.
        space: 'input' attacks the output of the test pipeline; 'image' attacks the image as it is in its file.
        target: target of the attack, as ``class:NAME``, ``remove:NAME`` or ``masks:DIR``; None for anything but the
            labels.
        region: the pixels that the attack may change, as ``box:TOP,LEFT,HEIGHT,WIDTH``, ``class:NAME`` or
            ``except:NAME``; None for all.
        score: 'rest' scores the pixels outside the region, 'all' scores all of them.
        source: the model that is attacked in place of the evaluated model; None attacks the evaluated model.
        precision: precision of model and attack.
        sweep: 'independent' attacks at each radius by itself. With 'shared', the result at a radius is a candidate at
            the larger radii. They attack only the images that still have a pixel to flip, and a cascade runs there only
            the parts that led at the smallest radius.
        checkpoint: checkpoint of the model, if it is known.
        config: the parts of the model's config that decide numbers.
        training_data: config of the training data, for attacks and measurements that need it; None if there is none.
        measurements: measurements of the evaluation.
        name: name of the attack in tables; None derives it from the attack.
        notes: sentences about the evaluation, for its results.

    Raises:
        UserError: a radius is invalid or given twice, the attack is targeted, or parts do not fit together.
    """

    attack: Attack | None = None
    radii: tuple[Radius, ...] = ()
    seed: NotNegative = 0
    limit: Positive | None = None
    space: Literal['input', 'image'] = 'input'
    target: str | None = None
    region: str | None = None
    score: Literal['rest', 'all'] = 'rest'
    source: SourceModel | None = None
    precision: Literal['float32', 'float64'] = 'float32'
    sweep: Literal['independent', 'shared'] = 'independent'
    checkpoint: CheckpointFile | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    training_data: Mapping[str, Any] | None = None
    measurements: tuple[Measurement, ...] = ()
    name: str | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        attacks = attacks_by_radius(self.attack, self.radii)
        check_region(self.attack, self.region, self.score)
        if self.sweep == 'shared':
            check_shared(attacks, self.source)
        for measurement in self.measurements:
            measurement.check(self)

    @property
    def attacks(self) -> dict[str, Attack | None]:
        """Returns the attack at every radius, by the radius' text; None stands for radius 0."""
        return attacks_by_radius(self.attack, self.radii)

    @property
    def region_text(self) -> str | None:
        """Returns the region of the attack as results name it: as given, 'patch' for a patch, or None."""
        return 'patch' if isinstance(self.attack, PatchAttack) else self.region

    @property
    def title(self) -> str:
        """Returns the name of the attack in tables, with any norm but Linf, its target and its source model."""
        if self.name:
            return self.name
        attack = next(filter(None, self.attacks.values()), None)
        title = 'clean' if attack is None else attack.title
        if attack is not None and not isinstance(attack.threat, Linf):
            title = f'{title}, {type(attack.threat).__name__}'
        if self.target:
            title = f'{title}, {self.target}'
        if self.region:
            title = f'{title}, inside {self.region}'
        return f'{title} on {Path(self.source.config).stem}, transferred' if self.source else title

    def completed(self, dataset: Any) -> EvaluationSpec:
        """Returns the evaluation with the class weights that its attack needs from the data, and a note on them.

        Args:
            dataset: the built test dataset.
        """
        if self.attack is None or not any(map(needs_class_weights, self.attacks.values())):
            return self
        weights = class_weights_of_dataset(dataset)
        attack = with_class_weights(self.attack, weights.value)
        return replace(self, attack=attack, notes=(*self.notes, weights.note))

    def settings(self) -> dict[str, Any]:
        """Returns the settings that a resumed run must share, fit for JSON; the number of images may change."""
        measured = {one.name: one.settings(self) for one in self.measurements}
        return {
            'checkpoint': self.checkpoint and {'sha256': self.checkpoint.sha256},
            'attack': self.attack and self.attack.describe(),
            'radii': list(self.attacks),
            'seed': self.seed,
            'precision': self.precision,
            'sweep': self.sweep,
            'space': self.space,
            'target': self.target,
            'region': self.region_text and [self.region_text, self.score],
            'source': self.source and self.source.to_json(),
            'measurements': {name: settings for name, settings in measured.items() if settings is not None} or None,
            'config': dict(self.config),
        }


def spec_from_arguments(
    *,
    attack: Attack | Mapping[str, Any] | None,
    source: SourceConfig | None,
    measurements: Sequence[Measurement | Mapping[str, Any]],
    **arguments: Any,
) -> EvaluationSpec:
    """Returns the evaluation that the arguments of a loop describe, without the config of its model.

    Args:
        attack: attack or its config.
        source: config and checkpoint of the source model; None without a source.
        measurements: measurements or their configs.
        arguments: further arguments of ``EvaluationSpec``, which are passed on unchanged.
    """
    built = None if attack is None else build(attack, ATTACKS)
    return EvaluationSpec(
        attack=built,
        source=None if source is None else SourceModel(source['config'], source.get('checkpoint')),
        measurements=all_measurements(built, [build_measurement(one) for one in measurements]),
        **arguments,
    )


def config_parts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments ``config`` and ``training_data`` of ``EvaluationSpec``, from a whole config."""
    settings = config.to_dict() if isinstance(config, Config) else dict(config)
    training = (settings.get('train_dataloader') or {}).get('dataset')
    data = (settings.get('test_dataloader') or {}).get('dataset')
    decisive = {key: settings.get(key) for key in DECISIVE_KEYS}
    return {'config': {**decisive, 'test_dataloader': {'dataset': data}}, 'training_data': training}


def all_measurements(attack: Attack | None, chosen: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """Returns the measurements of an evaluation: the chosen ones, and those that the attack implies."""
    by_kind = {type(one): one for one in chosen}
    implied = ((kind, by_kind.get(kind) or kind.implied_by(attack)) for kind in MEASUREMENTS.values())
    return tuple(one for _, one in implied if one is not None)


def build_measurement(config: Measurement | Mapping[str, Any]) -> Measurement:
    """Returns a measurement from its config, which has ``type`` and arguments.

    Raises:
        UserError: the argument is neither a measurement nor a config, or a type or argument is unknown.
    """
    if isinstance(config, Measurement):
        return config
    if not isinstance(config, Mapping):
        raise UserError(f'a measurement must be a Measurement or a config with a type; found {shown(config)}')
    arguments = dict(config)
    name = arguments.pop('type', None)
    if name not in MEASUREMENTS:
        raise UserError(f"unknown measurement '{name}'{nearest(str(name), MEASUREMENTS)}")
    try:
        return MEASUREMENTS[name](**arguments)
    except TypeError as error:
        raise UserError(f'measurement {name}: {error}') from None


def attacks_by_radius(
    attack: Attack | Mapping[str, Any] | None, radii: Sequence[Radius] = ()
) -> dict[str, Attack | None]:
    """Returns the attack at every radius, by the radius' text; None stands for radius 0.

    Raises:
        UserError: a radius is invalid or given twice; or the attack cannot be built, or is targeted.
    """
    if attack is None:
        if radii:
            raise UserError(f'radii {", ".join(map(str, radii))} are given, but no attack; name one, or leave them out')
        return {}
    values = {str(radius): parse_radius(radius) for radius in radii}
    if len(values) < len(radii):
        raise UserError(f'a radius is given twice in {", ".join(map(str, radii))}; give each once')
    built = build(attack, ATTACKS)
    if not isinstance(built, Attack):
        raise UserError(f'attack must be an attack or its config; found {shown(built)}')
    if built.targeted:
        raise UserError('give an untargeted attack, and set its aim as the target')
    if not values:
        return {radius_text(built.threat.radius): built}
    return {text: built.with_radius(text) if value > 0 else None for text, value in values.items()}


def check_region(attack: Attack | None, region: str | None, score: str) -> None:
    """Raises UserError unless an attack can be confined to a region, as ``EvaluationSpec`` names it."""
    if region is None:
        if score != 'rest' and not isinstance(attack, PatchAttack):
            raise UserError('test_cfg.score is for test_cfg.region or a patch; give one of them, or leave it out')
        return
    parse_box(region)
    if attack is None:
        raise UserError('test_cfg.region needs an attack; name one')
    if attack.threat.region is not None:
        raise UserError('test_cfg.region would replace the region of the attack; leave out one of them')
    attack.inside(Box(top=0, left=0, height=1, width=1))


def check_shared(attacks: Mapping[str, Attack | None], source: SourceModel | None) -> None:
    """Raises UserError unless results at one radius can be candidates at another.

    Args:
        attacks: radius -> attack; None stands for radius 0.
        source: the model that is attacked in place of the evaluated model; None without one.
    """
    positive = [attack for attack in attacks.values() if attack is not None]
    if len(positive) < 2:
        raise UserError(
            f'test_cfg.sweep shared needs two positive radii or more; found {len(positive)}; add radii, or leave '
            'test_cfg.sweep out'
        )
    if source is not None:
        raise UserError(
            'test_cfg.sweep shared compares predictions of the evaluated model, which a transfer attack does not see; '
            'leave out test_cfg.sweep or test_cfg.source'
        )
    if not positive[0].keeps_strongest:
        raise UserError(
            f'test_cfg.sweep shared needs an attack that keeps its strongest image; {positive[0].title} is defined by '
            'another one; leave test_cfg.sweep out'
        )


def sweep_notes(spec: EvaluationSpec) -> list[str]:
    """Returns notes for the reader of results if a number depends on the other radii of the run."""
    if spec.sweep == 'independent':
        return []
    attacks = {radius: attack for radius, attack in spec.attacks.items() if attack is not None}
    notes = [
        f'the radii {", ".join(attacks)} share results: an image found at a smaller radius counts at the larger radii '
        'too, so a run with other radii may give another number'
    ]
    first = min(attacks, key=parse_radius)
    if isinstance(attacks[first], Cascade):
        notes.append(f'above {first}, an image is attacked only by the parts of the attack that led on it at {first}')
    return notes


def first_attack(attacks: Mapping[str, Attack | None]) -> tuple[str, Attack]:
    """Returns the first positive radius and the attack there."""
    return next((radius, attack) for radius, attack in attacks.items() if attack is not None)


def radius_text(radius: float) -> str:
    """Returns the text of a radius, as a multiple of 1/255 if it is one.

    >>> radius_text(4 / 255), radius_text(0.03), radius_text(1.0)
    ('4/255', '0.03', '1')
    """
    if radius == int(radius):
        return str(int(radius))
    levels = round(radius * 255, 6)
    return f'{levels:g}/255' if levels == int(levels) else repr(radius)
